"""Update of the target branch, once per optimizer step."""
import math

from mmengine.hooks import Hook

from ...registry import HOOKS
from ...utils.unwrap import unwrap_model


@HOOKS.register_module()
class TargetUpdateHook(Hook):
    """Hook that updates the target of :class:`UniVIP` once per optimizer step.

    The target moves once per accumulated step, and does not move after a
    skipped step. If the device skips a step, ``model.skipped_step`` is 1, and
    the step still counts in the schedule of the momentum. Without this hook,
    the target moves with each batch, as in the host's BYOL.

    A checkpoint has ``meta.target_update``: whether an update is due, and
    whether the last step was skipped. So a resumed training moves the target
    as the uninterrupted one.
    """

    def __init__(self) -> None:
        self._is_due, self._is_skipped = True, False

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Save whether the next batch moves the target."""
        model = unwrap_model(runner.model)
        if hasattr(model, 'steps_since_update'):
            checkpoint['meta']['target_update'] = dict(
                is_due=model.steps_since_update != 0,
                is_skipped=bool(model.skipped_step))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Read what ``before_save_checkpoint`` has saved, in a resume."""
        found = checkpoint.get('meta', {}).get('target_update')
        if runner._resume and isinstance(found, dict):
            self._is_due = found.get('is_due') is not False
            self._is_skipped = found.get('is_skipped') is True

    def before_train(self, runner) -> None:
        """Count the steps of the optimizer."""
        model = unwrap_model(runner.model)
        if not hasattr(model, 'steps_since_update'):
            return
        # The first batch updates the target to the initial weights.
        model.steps_since_update = int(self._is_due)
        if self._is_skipped:
            model.skipped_step = next(model.parameters()).new_ones(())

        def count(optimizer, *_) -> None:
            model.steps_since_update += 1
            # Scalar on the device, or None if the host skips bad steps.
            model.skipped_step = getattr(optimizer, 'found_inf', None)

        wrapper = runner.optim_wrapper
        wrapper.optimizer.register_step_post_hook(count)
        model.target_net.max_updates = math.ceil(
            runner.max_iters / getattr(wrapper, '_accumulative_counts', 1))
