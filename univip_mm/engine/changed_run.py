"""Adaptation of a checkpoint to a run with other settings.

Compared are the settings that the checkpoint has recorded, or what stock
checkpoints say. What can be converted is converted in the checkpoint, before
MMEngine uses it; the rest is refused.
"""
from typing import NamedTuple, Optional

import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ..utils.unwrap import unwrap_model
from .checkpoint import resumed_iteration, weights_of
from .hooks.target_update_hook import TargetUpdateHook
from .resumed_state import (
    check_model_fits,
    check_optimizer_fits,
    use_present_values,
)
from .run_record import (
    RunRecord,
    describe_changes,
    read_record,
    record_run,
    stored_iters_per_epoch,
)
from .schedules import schedules_fit, step_schedules


class ChangedRunError(ValueError):
    """Error of a checkpoint that cannot be resumed with this run."""


class NothingToDoError(SystemExit):
    """Exit of a run whose checkpoint has reached the end; the status is 0."""


class Position(NamedTuple):
    """Place in a training at which it resumes."""
    epoch: int  # number of complete epochs
    iteration: int
    words: str  # of the epoch, '' if it does not start in the middle


def adapt_checkpoint(runner: Runner, checkpoint: dict) -> str:
    """Convert a checkpoint to the settings of the present run, in place.

    Returns:
        str: One line that says what changed and what was done, or ''.

    Raises:
        ValueError: The checkpoint cannot be resumed by this run.
        NothingToDoError: The training is complete.
    """
    resumed_iteration(checkpoint)
    meta = checkpoint['meta']
    old, new = read_record(meta), record_run(runner)
    _check_same_loop(checkpoint, old, new)
    check_model_fits(weights_of(checkpoint), unwrap_model(runner.model))
    before = meta['epoch'], meta['iter']
    position = convert_position(
        checkpoint, old, new, hasattr(runner.train_dataloader.sampler, 'skip'))
    meta['epoch'], meta['iter'] = position.epoch, position.iteration
    _check_end(runner, position)
    details = [position.words] if position.words and (
        old and old != new or before != position[:2]) else []
    if before[1] != position.iteration:
        details.append(f'iteration {before[1]} is now {position.iteration}')
    details += _convert_optimizer(runner, checkpoint, old, new, position)
    if before[1] != position.iteration or (
            old and old.accumulative_counts != new.accumulative_counts):
        _convert_averages(runner, checkpoint, new, position.iteration)
    if old is None and details:
        return ('resumed a checkpoint without a record of its settings: '
                f'{"; ".join(details)}')
    if old and old != new:
        return ('resumed with other settings: '
                f'{"; ".join([describe_changes(old, new), *details])}')
    return f'resumed: {"; ".join(details)}' if details else ''


def convert_position(content: dict, old: Optional[RunRecord], new: RunRecord,
                     can_skip: bool) -> Position:
    """Return the position of a checkpoint in the present run.

    An epoch that was interrupted goes on after the images that it has used.
    If they do not fill whole iterations, the last ones are used again. The
    epoch begins again if its images or their order are others, or unknown,
    or if the sampler cannot skip images.

    Args:
        content (dict): The checkpoint.
        old (RunRecord, optional): Record of the checkpoint.
        new (RunRecord): Record of the present run.
        can_skip (bool): The sampler can skip the images already used.
    """
    epoch, iteration = content['meta']['epoch'], content['meta']['iter']
    sizes = [x.total_batch_size if x else 0 for x in (old, new)]
    if not new.by_epoch:
        if all(sizes) and sizes[0] != sizes[1]:
            iteration = iteration * sizes[0] // sizes[1]
        return Position(epoch, iteration, '')
    length = new.iters_per_epoch
    if not length:
        return Position(epoch, iteration, '')
    old_length = stored_iters_per_epoch(content) or length
    done = iteration - epoch * old_length
    if done == old_length and not can_skip:
        return Position(epoch + 1, (epoch + 1) * length, '')
    kept = length if done == old_length else 0
    if can_skip and 0 < done < old_length:
        kept = _convert_iterations(done, old_length, old, new)
    words = f'epoch {epoch + 1} ' + (
        f'goes on after {kept} of {length} iterations' if kept else
        'begins again' if can_skip else 'begins again, because the sampler '
        'cannot skip the images already used (EpochSampler can)')
    return Position(epoch, epoch * length + kept, words if done else '')


def _convert_iterations(done: int, old_length: int, old: Optional[RunRecord],
                        new: RunRecord) -> int:
    """Return the iterations of this run that use no more images."""
    if old is None:
        return done if old_length == new.iters_per_epoch else 0
    if (old.num_images, old.order) != (new.num_images, new.order):
        return 0
    sizes = old.total_batch_size, new.total_batch_size
    if sizes[0] == sizes[1]:
        return min(done, new.iters_per_epoch)
    # The ranks take turns in one order of the images, so the first iterations
    # use its first images, whatever the number of ranks.
    return min(done * sizes[0] // sizes[1],
               new.iters_per_epoch) if all(sizes) else 0


def _check_same_loop(content: dict, old: Optional[RunRecord],
                     new: RunRecord) -> None:
    """Raise ValueError if only one of the runs counts epochs."""
    epochs = content['message_hub']['runtime_info'].get('max_epochs')
    # MMEngine's loop by iterations has a single epoch.
    by_epoch = old.by_epoch if old else (
        True if type(epochs) is int and epochs > 1 else new.by_epoch)
    if by_epoch != new.by_epoch:
        kinds = 'epochs', 'iterations'
        raise ValueError(
            f'it is of a training by {kinds[not by_epoch]}, and this is one '
            f'by {kinds[by_epoch]}: resume with the same train_cfg.type')


def _check_end(runner: Runner, position: Position) -> None:
    """Raise NothingToDoError if the training has reached its end."""
    loop = runner.train_loop
    is_epochs = isinstance(loop, EpochBasedTrainLoop)
    if not is_epochs and not isinstance(loop, IterBasedTrainLoop):
        return
    done, end, unit = (
        (position.epoch, runner.max_epochs, 'epochs') if is_epochs else
        (position.iteration, runner.max_iters, 'iterations'))
    if done >= end:
        key = 'max_epochs' if is_epochs else 'max_iters'
        runner.logger.warning(
            f'already trained for {done} of {end} {unit}: nothing to do; to '
            f'train on, set train_cfg.{key} and the last `end` in '
            'param_scheduler to a larger number')
        raise NothingToDoError(0)


def _convert_optimizer(runner: Runner, checkpoint: dict,
                       old: Optional[RunRecord], new: RunRecord,
                       position: Position) -> list[str]:
    """Convert the state of the optimizer and the schedules.

    If anything changed, the schedules and all options of the optimizer are
    those of a new run that has reached the position. Otherwise the stored
    state stays as it is.

    Returns:
        list[str]: What was done.

    Raises:
        ValueError: The stored state cannot be used.
    """
    wrapper, stored = runner.optim_wrapper, checkpoint.get('optimizer')
    if isinstance(wrapper, OptimWrapperDict):
        if old and old != new:
            raise ValueError('a training with several optimizers can be '
                             'resumed with the same settings only')
        return []
    if isinstance(stored, dict) and stored.get('loss_scaler') == {}:
        del stored['loss_scaler']  # the scaler was off
    if stored is not None:
        check_optimizer_fits(stored, wrapper, new.optimizer,
                             old.optimizer if old else '')
    schedulers = runner.param_schedulers or []
    fit = schedules_fit(checkpoint.get('param_schedulers', []), schedulers,
                        position.epoch, position.iteration)
    if not fit:
        # In place: the Runner's schedules have not made a step yet.
        step_schedules(schedulers, position.epoch, position.iteration,
                       new.iters_per_epoch if new.by_epoch else 0)
        checkpoint['param_schedulers'] = [x.state_dict() for x in schedulers]
    notes = [] if fit else ['the schedules were rebuilt']
    if stored is None:
        return [*notes, 'the checkpoint has no state of the optimizer, which '
                'starts anew']
    if fit and old == new:
        return []
    if old and _scale_options(old) != _scale_options(new) and stored.pop(
            'loss_scaler', None):
        notes.append('the loss scale starts anew')
    scheduled = {x.param_name for x in schedulers} if fit else set()
    # Of a recorded run, the changed keys of the config are reported already.
    return notes + [x for x in use_present_values(stored, wrapper, scheduled)
                    if old is None or x.startswith('lr ')]


def _scale_options(record: RunRecord) -> dict[str, str]:
    """Return the options of mixed precision on which the scale depends."""
    return {key: value for key, value in record.settings.items()
            if key.startswith(('optim_wrapper.dtype',
                               'optim_wrapper.loss_scale'))}


def _convert_averages(runner: Runner, checkpoint: dict, new: RunRecord,
                      iteration: int) -> None:
    """Set the number of updates of each moving average in the model.

    The momentum depends on this number. It stays above 0, because the first
    update is a copy.
    """
    per_update = new.accumulative_counts if any(
        isinstance(x, TargetUpdateHook) for x in runner.hooks) else 1
    weights = checkpoint['state_dict']
    for name, module in unwrap_model(runner.model).named_modules():
        steps = weights.get(f'{name}.steps')
        if isinstance(module, ExponentialMovingAverage) and steps:
            weights[f'{name}.steps'] = torch.full_like(
                steps, max(-(-iteration // per_update), 1))
