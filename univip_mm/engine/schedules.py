"""Schedules of the learning rate, and of other values of the optimizer."""
import warnings
from typing import Any

from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import EpochBasedTrainLoop, Runner

# What changes while a scheduler runs; the rest of its state is its config.
_RUNNING = {'_global_step', 'last_step', '_last_value', 'verbose'}


def schedules_fit(stored: Any, schedulers: list, epoch: int,
                  iteration: int) -> bool:
    """Return True if the stored states are of these schedules at a position.

    Args:
        stored (Any): ``param_schedulers`` of a checkpoint.
        schedulers (list): Schedulers of the present run, before a step.
        epoch (int): Number of complete epochs.
        iteration (int): Number of iterations.
    """
    if not isinstance(stored, list) or len(stored) != len(schedulers):
        return False
    for state, scheduler in zip(stored, schedulers):
        if not isinstance(state, dict):
            return False
        if _needs_scores(scheduler):
            continue  # its state has no fixed position
        if _settings(state) != _settings(scheduler.state_dict()):
            return False
        if state.get('_global_step') != (
                epoch if scheduler.by_epoch else iteration):
            return False
    return True


def step_schedules(schedulers: list, epoch: int, iteration: int,
                   iters_per_epoch: int) -> None:
    """Step new schedulers to a position, as a training does.

    MMEngine's schedulers compute each value from the one before, so there is
    no shorter way. Afterwards, the optimizer has the values of the position.

    Raises:
        ValueError: A scheduler needs the scores of a validation.
    """
    if any(map(_needs_scores, schedulers)):
        raise ValueError('ReduceOnPlateau schedules follow the scores of the '
                         'run and cannot be rebuilt')
    by_iter = [x for x in schedulers if not x.by_epoch]
    by_epoch = [x for x in schedulers if x.by_epoch]
    with warnings.catch_warnings():  # of a step before the optimizer's
        warnings.simplefilter('ignore')
        for done in range(1, iteration + 1):
            for scheduler in by_iter:
                scheduler.step()
            if by_epoch and iters_per_epoch and (
                    done % iters_per_epoch == 0
                    and done // iters_per_epoch <= epoch):
                for scheduler in by_epoch:
                    scheduler.step()


def schedule_warnings(runner: Runner) -> list[str]:
    """Return a line for each schedule that does not fit the training.

    A schedule without an end, and a warm-up on its own, fit any training.
    Call this function after the Runner has built the schedules.
    """
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):  # of several optimizers
        schedulers = sum(schedulers.values(), [])
    is_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(runner.train_dataloader) if is_epochs else 1
    if not is_epochs:  # the whole training is a single epoch
        schedulers = [x for x in schedulers if not x.by_epoch]
    unit, key = ('epochs', 'max_epochs') if is_epochs else (
        'iterations', 'max_iters')
    whole = f'{runner.max_iters / length:g}'
    steps = [length if x.by_epoch else 1 for x in schedulers]
    warnings = [
        f'the schedule {type(x).__name__} in param_scheduler begins after '
        f'{x.begin * step / length:g} {unit}, but the training ends after '
        f'{whole}, so it has no effect: set `begin` and `end` in '
        f'param_scheduler to fit train_cfg.{key}'
        for x, step in zip(schedulers, steps)
        if x.begin * step >= runner.max_iters]
    last = max((_end(x) * step for x, step in zip(schedulers, steps)),
               default=0)
    if warnings or last in (0, runner.max_iters):
        return warnings
    end = f'{last / length:g}'
    effect = ('keep their last value from then on' if last < runner.max_iters
              else 'do not reach their last value')
    return [f'the schedules in param_scheduler end after {end} {unit}, but '
            f'the training ends after {whole}, so they {effect}: set '
            f'train_cfg.{key}={end}, or the last `end` (and T_max) in '
            f'param_scheduler to {whole}']


def _end(scheduler: Any) -> int:
    """Return the step at which a schedule stops to change, 0 for none."""
    if getattr(scheduler, 'end_factor', None) == 1 or hasattr(
            scheduler, 'factor'):
        return 0  # LinearLR as a warm-up, and ConstantLR
    period = getattr(scheduler, 'T_max', INF)
    end = min(scheduler.end, scheduler.begin + period)
    return end if end < INF else 0


def _needs_scores(scheduler: Any) -> bool:
    return bool(getattr(scheduler, 'need_val_args', False))


def _settings(state: dict) -> dict:
    return {key: value for key, value in state.items()
            if key not in _RUNNING}
