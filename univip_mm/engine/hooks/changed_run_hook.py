"""Resumption of a training with other settings."""
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...registry import HOOKS
from ...utils.heartbeat import stop_heartbeat
from ...utils.text import printable
from ...utils.unwrap import unwrap_model
from ..changed_run import (
    ChangedRunError,
    NothingToDoError,
    adapt_checkpoint,
)
from ..checkpoint import weights_of
from ..rank_check import errors_on_all_ranks
from ..resumed_state import count_fitting_weights
from ..run_record import RunRecord, record_run


@HOOKS.register_module()
class ChangedRunHook(Hook):
    """Hook that adapts a resumed checkpoint to the settings of this run.

    MMEngine uses a checkpoint as it is: its number of iterations, its
    schedules and its options of the optimizer win over those of the config.
    With another batch size, number of processes, number of epochs or other
    images, epochs would be skipped and learning rates would be wrong.

    The hook records the settings of the run in each checkpoint
    (``meta['run']``). When a checkpoint is resumed, the hook compares them
    with the present ones, converts what can be converted, and reports the
    changes in one line. See :mod:`univip_mm.engine.changed_run`.

    Raises:
        ChangedRunError: The checkpoint cannot be resumed with these settings.
        NothingToDoError: The checkpoint has reached the end of the training.
    """
    # After SafeResumeHook, which makes the checkpoint plain.
    priority = 'HIGH'

    def __init__(self) -> None:
        self._record: Optional[RunRecord] = None

    def before_run(self, runner) -> None:
        """Refuse a runner whose checkpoints the hook does not see."""
        if not isinstance(runner, Runner):
            raise ChangedRunError(
                f'runner_type is {type(runner).__name__}, but only Runner '
                'and its subclasses are supported: leave runner_type out')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Record the settings of the run."""
        if self._record is None:  # takes 0.6 s for the images of COCO
            self._record = record_run(runner)
        checkpoint['meta']['run'] = self._record._asdict()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Adapt the checkpoint, before the Runner uses it."""
        if not runner._resume:
            _report_weights(runner, checkpoint)
            return
        text, is_finished = '', False
        try:
            with errors_on_all_ranks():
                try:
                    text = adapt_checkpoint(runner, checkpoint)
                except NothingToDoError:
                    is_finished = True
                except ValueError as e:
                    raise ChangedRunError(_refusal(runner, e)) from None
        except ValueError as e:  # of another rank
            raise ChangedRunError(str(e)) from None
        if is_finished:
            stop_heartbeat()
            raise NothingToDoError(0)
        if text:
            runner.logger.warning(text)


def _refusal(runner: Any, error: ValueError) -> str:
    return (f"cannot resume from '{printable(runner._load_from)}': {error}; "
            'or train anew from its weights, with load_from and without '
            'resume')


def _report_weights(runner: Any, checkpoint: dict) -> None:
    """Log how many weights of the model the file has."""
    used, number = count_fitting_weights(
        weights_of(checkpoint), unwrap_model(runner.model))
    if used < number:
        runner.logger.warning(
            f'{used} of {number} weights of the model are in the checkpoint; '
            'the others keep their initial values')
