"""Record of a run's settings, which each of its checkpoints contains."""
import os
from typing import Any, NamedTuple, Optional

from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..utils.text import excerpt, printable
from .rank_check import digest_of, flatten, image_infos

# No training has more iterations, images or processes.
MAX_COUNT = 10**12
# Sections of the config whose values are compared. The seed is not: a resumed
# training keeps the seed of its checkpoint.
SECTIONS = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler',
            'train_cfg', 'auto_scale_lr')
# Keys that change nothing but the speed.
SPEED_KEYS = {f'train_dataloader.{key}' for key in (
    'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor',
    'timeout', 'multiprocessing_context')}
# Keys that say how the files are read. They can contain passwords. A pixel
# cache has the same pixels as the files.
ACCESS_KEYS = {'backend_args', 'file_client_args', 'cache'}
MAX_REPORTED = 8


class RunRecord(NamedTuple):
    """Settings on which the position and the schedules of a run depend."""
    by_epoch: bool
    batch_size: int  # images per process and iteration, 0 if it varies
    world_size: int
    accumulative_counts: int
    num_images: int
    order: str  # digest of the image list and of what orders it
    iters_per_epoch: int  # 0 if the loader has no length
    optimizer: str  # name of the class
    settings: dict[str, str]  # keys and values of the config

    @property
    def total_batch_size(self) -> int:
        """Number of images per iteration, on all processes."""
        return self.batch_size * self.world_size


def record_run(runner: Runner) -> RunRecord:
    """Return the record of the present run, the same on all ranks."""
    loader = runner.train_dataloader
    wrapper = runner.optim_wrapper
    return RunRecord(
        by_epoch=isinstance(runner.train_loop, EpochBasedTrainLoop),
        batch_size=loader.batch_size or 0,
        world_size=get_world_size(),
        accumulative_counts=getattr(wrapper, '_accumulative_counts', 1),
        num_images=_length(loader.dataset),
        order=_digest_of_order(loader),
        iters_per_epoch=_length(loader),
        optimizer=_optimizer_name(getattr(wrapper, 'optimizer', wrapper)),
        settings=_settings(runner.cfg.to_dict()))


def read_record(meta: dict) -> Optional[RunRecord]:
    """Return the record in a checkpoint's ``meta``, or None without one.

    Raises:
        ValueError: A value of the record is wrong.
    """
    stored = meta.get('run')
    if stored is None:
        return None
    if not isinstance(stored, dict):
        raise ValueError(f'meta.run is a {type(stored).__name__}, not a dict')
    for key, kind in RunRecord.__annotations__.items():
        value = stored.get(key)
        is_right = (
            isinstance(value, dict) and all(
                isinstance(x, str) for pair in value.items() for x in pair)
            if key == 'settings' else type(value) is kind)
        if not is_right or kind is int and not 0 <= value <= MAX_COUNT:
            raise ValueError(f'meta.run.{key} is {excerpt(value)}')
    return RunRecord(*(stored[key] for key in RunRecord._fields))


def stored_iters_per_epoch(content: dict) -> int:
    """Return the iterations per epoch of a checkpoint's run, 0 if unknown.

    Without a record, MMEngine's ``runtime_info`` is used. It does not say
    whether a single epoch is one, or a whole training by iterations.

    Raises:
        ValueError: A value of the record is wrong.
    """
    record = read_record(content['meta'])
    if record:
        return record.iters_per_epoch if record.by_epoch else 0
    info = content['message_hub']['runtime_info']
    epochs, iters = info.get('max_epochs'), info.get('max_iters')
    if (type(epochs) is not int or type(iters) is not int
            or not 0 < epochs <= iters <= MAX_COUNT or iters % epochs):
        return 0
    return iters // epochs if epochs > 1 or content['meta']['epoch'] else 0


def progress(content: dict) -> tuple[float, int]:
    """Return how far a checkpoint's training is, to compare checkpoints.

    Iterations alone do not say this: a run that was resumed with a larger
    batch needs fewer of them.

    Raises:
        ValueError: A value of the record is wrong.
    """
    epoch, iteration = content['meta']['epoch'], content['meta']['iter']
    record, length = read_record(content['meta']), stored_iters_per_epoch(
        content)
    if record and not record.by_epoch:
        return 0., iteration * max(record.total_batch_size, 1)
    if not length:
        return float(epoch), iteration
    done = min(max(iteration - epoch * length, 0), length)
    return epoch + done / length, 0


def describe_changes(old: RunRecord, new: RunRecord) -> str:
    """Return the settings that differ, as ``key old -> new; ...``."""
    changes = [
        f'{name} {before} -> {after}' for name, before, after in (
            ('number of images', old.num_images, new.num_images),
            ('number of processes', old.world_size, new.world_size),
            ('iterations per epoch', old.iters_per_epoch,
             new.iters_per_epoch)) if before != after]
    if old.num_images == new.num_images and old.order != new.order:
        changes.append('other images, or another order')
    for key in {**old.settings, **new.settings}:
        before, after = old.settings.get(key), new.settings.get(key)
        if before != after:
            changes.append(
                f'{_plain(key, 100)} {_plain(before)} -> {_plain(after)}')
    more = len(changes) - MAX_REPORTED
    return '; '.join(changes[:MAX_REPORTED] + (
        [f'and {more} other values'] if more > 0 else []))


def _plain(text: Optional[str], size: int = 40) -> str:
    """Return the start of a stored value as printable text."""
    text = 'missing' if text is None else printable(text)
    return text if len(text) <= size else f'{text[:size - 3]}...'


def _length(sized: Any) -> int:
    try:
        return len(sized)
    except TypeError:  # an IterableDataset, or its loader
        return 0


def _optimizer_name(optimizer: Any) -> str:
    # A ZeroRedundancyOptimizer has the optimizer of its part in `optim`.
    return type(getattr(optimizer, 'optim', optimizer)).__name__


def _settings(cfg: dict) -> dict[str, str]:
    return {key: value for section in SECTIONS if section in cfg
            for key, value in flatten(cfg[section], section)
            if key not in SPEED_KEYS and ACCESS_KEYS.isdisjoint(
                key.split('.'))}


def _digest_of_order(loader: Any) -> str:
    """Return a digest of the image list and of what orders it.

    The folder of all images is left out, so the images can be moved.
    """
    infos = image_infos(loader.dataset)
    paths = [str(info.get('img_path')) for info in infos]
    start = len(os.path.commonprefix(paths))
    sampler = loader.sampler
    return digest_of([
        type(sampler).__name__, getattr(sampler, 'shuffle', None),
        [(path[start:], info.get('img_id'))
         for path, info in zip(paths, infos)]])
