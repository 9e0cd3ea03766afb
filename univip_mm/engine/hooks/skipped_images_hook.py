"""Report of images that could not be used."""
import math
import os.path as osp
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, get_rank
from mmengine.hooks import Hook

from ...datasets.wrappers import leaves
from ...io.atomic import open_to_append
from ...io.images import REASONS, TOO_SMALL, TooManyUnreadableError
from ...registry import HOOKS
from ...utils.text import printable
from ...utils.unwrap import unwrap_model
from .safe_checkpoint_hook import save_checkpoint_atomically

FILE = 'skipped_images.txt'
CHECKPOINT = 'stopped.pth'
TOO_SMALL_CODE = 1 + REASONS.index(TOO_SMALL)


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Hook that reports skipped images and limits the unreadable ones.

    After an epoch, the hook logs the number of images for each reason, over
    all ranks, and the first paths. It logs nothing if no image was skipped
    since the last epoch. ``skipped_images.txt`` in the log folder lists all
    images, with a path and a reason in each line. Control characters of a
    path are escaped.

    Images that the proposal search could not read count towards the limit,
    which is checked before the first iteration. So do files that only the
    decoder of ``LoadEncodedImage(decode='device')`` found unreadable. Images
    smaller than the data
    set's ``min_image_size`` are reported, but do not count. The data set can
    be in the wrappers of :func:`univip_mm.datasets.wrappers.leaves`; data sets
    that record no skipped images have no limit, and the log says so.

    Before a training is stopped within an epoch, a checkpoint is saved, so
    ``--resume`` continues after the last iteration.

    Args:
        max_unreadable (float): Maximum fraction of unreadable images in the
            data set. If there are more, all ranks stop with
            :class:`~univip_mm.io.images.TooManyUnreadableError`. Defaults to
            0.01.
        interval (int): Iterations between two checks; each epoch ends with a
            check too. A check is an all-reduce of one number, plus one byte
            per image if a rank has a new skipped image. Defaults to 50.

    Raises:
        ValueError: An option is out of its range.
    """
    # After the hooks of the schedules and checkpoints: the checkpoint of a
    # stopped training must be that of a complete iteration.
    priority = 'LOWEST'

    def __init__(self, max_unreadable: float = 0.01,
                 interval: int = 50) -> None:
        if not 0 <= max_unreadable <= 1:
            raise ValueError(
                f'SkippedImagesHook: max_unreadable is {max_unreadable}, but '
                'must be a fraction from 0 to 1')
        if interval < 1:
            raise ValueError(f'SkippedImagesHook: interval is {interval}, but '
                             'must be at least 1')
        self.max_unreadable = max_unreadable
        self.interval = interval
        self._not_searched = 0
        self._own: Any = None  # of this rank, (images,) uint8
        self._of_all: Any = None
        # Of all ranks: reason by path. Batches have no index of an image.
        self._undecoded: dict[str, str] = {}

    def before_train(self, runner) -> None:
        """Check the images that the proposal search could not read."""
        data_sets = _recording(runner)
        if missing := [type(x).__name__ for x in leaves(
                runner.train_dataloader.dataset) if x not in data_sets]:
            runner.logger.info('no limit on unreadable images: '
                               f'{", ".join(missing)} does not record them')
        paths = [printable(path) for x in data_sets for path in x.unreadable]
        number = torch.tensor(float(len(paths)))
        all_reduce(number, op='max')  # all ranks stop, or none
        self._not_searched = int(number)
        self._append(runner, [
            f'{path}\tnot read by the proposal search'
            for path in paths])
        total = len(paths) + _total(runner)
        if self._not_searched > self.max_unreadable * total:
            raise TooManyUnreadableError(
                f'{_share(self._not_searched, total)} could not be read by '
                f'the proposal search: {_first(paths)}; '
                + self._cure(runner, self._not_searched / total))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None,
                         outputs=None) -> None:
        """Check every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._check(runner, runner.iter + 1)

    def after_train_epoch(self, runner) -> None:
        """Check, and log the images skipped so far."""
        self._check(runner, runner.iter)
        if self._undecoded:
            runner.logger.warning(self._describe_undecoded(runner))
        if self._of_all is None or not self._of_all.any():
            return
        small = self._of_all == TOO_SMALL_CODE
        for codes, what in (
                (self._of_all * ~small, 'could not be read so far'),
                (self._of_all * small, 'were too small')):
            if codes.any():
                # MMEngine's logger drops a warning that repeats.
                runner.logger.warning(self._describe(runner, codes, what))

    def _check(self, runner, done: int) -> None:
        """Merge the skipped images of all ranks and check their number.

        ``done`` is the number of finished iterations.
        """
        data_sets = _recording(runner)
        # A copy: the workers may change it meanwhile.
        own = torch.cat([torch.zeros(0, dtype=torch.uint8),
                         *(x.skipped for x in data_sets)])
        if self._own is None:
            self._own, self._of_all = own * 0, own * 0
        undecoded = _undecoded(runner)
        is_new = (own != self._own).any() or any(
            path not in self._undecoded for path in undecoded)
        is_new = torch.tensor(float(is_new))
        all_reduce(is_new, op='max')
        if not is_new:
            return
        before, self._own, self._of_all = self._of_all, own, own.clone()
        if len(own):
            all_reduce(self._of_all, op='max')
        new = (self._of_all != before).nonzero().flatten().tolist()
        # The view sheet decodes in a worker, so a file can be in both records.
        self._append(runner, [
            f'{path}\t{REASONS[self._of_all[index] - 1]}'
            for index, path in zip(new, _paths(data_sets, new))
            if path not in self._undecoded])
        late = self._merge_undecoded(undecoded)
        listed = set(_paths(
            data_sets, self._of_all.nonzero().flatten().tolist()
        )) if self._undecoded else set()
        self._append(runner, [f'{path}\t{reason}' for path, reason in
                              late.items() if path not in listed])
        unreadable = self._of_all * (self._of_all != TOO_SMALL_CODE)
        number = (int(unreadable.count_nonzero()) + self._not_searched
                  + len(self._undecoded.keys() - listed))
        total = _total(runner) + self._not_searched
        if number > self.max_unreadable * total:
            texts = []
            if unreadable.any():
                texts.append(
                    self._describe(runner, unreadable, 'cannot be read'))
            if self._undecoded:
                texts.append(self._describe_undecoded(runner))
            if self._not_searched:
                texts.append('the proposal search could not read '
                             f'{self._not_searched} others')
            raise TooManyUnreadableError(
                f'{"; ".join(texts)}. {self._cure(runner, number / total)}'
                + _save(runner, done))

    def _merge_undecoded(self, own: dict[str, str]) -> dict[str, str]:
        """Merge the files that the decoders of all ranks could not read.

        Returns:
            dict[str, str]: Reason by path of the new ones.
        """
        new = {path: reason for part in all_gather_object(own)
               for path, reason in part.items() if path not in self._undecoded}
        self._undecoded.update(new)
        return new

    def _describe_undecoded(self, runner) -> str:
        return (f'{_share(len(self._undecoded), _total(runner))} could not be '
                'decoded in the training process and were replaced by others '
                f'of their batch: {_first(list(self._undecoded))}')

    def _append(self, runner, lines: Sequence[str]) -> None:
        if get_rank() != 0 or not lines:
            return
        path = osp.join(runner.log_dir, FILE)
        try:
            with open_to_append(path) as file:
                file.writelines(f'{line}\n' for line in lines)
        except OSError as e:
            runner.logger.warning(printable(f"cannot write '{path}': {e}"))

    def _describe(self, runner, codes: torch.Tensor, what: str) -> str:
        """Return the counts per reason and the first ten paths."""
        data_sets = _recording(runner)
        skipped = codes.nonzero().flatten().tolist()
        counts = sorted(Counter(codes[skipped].tolist()).items())
        reasons = ', '.join(f'{REASONS[code - 1]}: {x}' for code, x in counts)
        first = _first(_paths(data_sets, skipped[:10]), len(skipped))
        return (f'{_share(len(skipped), _total(runner))} {what} and were '
                f'replaced by others ({reasons}): {first}; all are in '
                f"'{osp.join(runner.log_dir, FILE)}'")

    def _cure(self, runner, share: float) -> str:
        enough = min(1, math.ceil(100 * share) / 100)
        return (f'max_unreadable of SkippedImagesHook is '
                f'{self.max_unreadable:.2%}: repair or remove the images and '
                'search for proposals again; or continue without them, with '
                '--cfg-options '
                f'default_hooks.skipped_images.max_unreadable={enough:g}')


def _recording(runner) -> list[Any]:
    """Return the training's data sets that record skipped images."""
    return [x for x in leaves(runner.train_dataloader.dataset)
            if hasattr(x, 'skipped')]


def _undecoded(runner) -> dict[str, str]:
    """Return this rank's files that its decoder could not read."""
    preprocessor = getattr(unwrap_model(runner.model), 'data_preprocessor',
                           None)
    decoder = getattr(preprocessor, 'jpeg_decoder', None)
    return decoder.unreadable if decoder else {}


def _total(runner) -> int:
    """Return the number of images, each counted once."""
    # A loader with num_batch_per_epoch uses a part of the images.
    number = len(runner.train_dataloader.dataset)
    return min(sum(map(len, _recording(runner))) or number, number)


def _paths(data_sets: Sequence[Any], indices: Sequence[int]) -> list[str]:
    """Return the escaped paths of images, counted over all data sets."""
    paths = []
    for index in indices:
        for dataset in data_sets:
            if index < len(dataset):
                paths.append(
                    printable(dataset.get_data_info(index)['img_path']))
                break
            index -= len(dataset)
    return paths


def _share(number: int, total: int) -> str:
    return f'{number} of {total} images ({number / total:.2%})'


def _first(paths: Sequence[str], number: int = 0) -> str:
    more = ', ...' if max(number, len(paths)) > 10 else ''
    return ', '.join(paths[:10]) + more


def _save(runner, done: int) -> str:
    """Save a checkpoint on all ranks; return the end of the message."""
    epoch = done // len(runner.train_dataloader)
    try:
        path = save_checkpoint_atomically(
            runner, runner.work_dir, CHECKPOINT, by_epoch=False,
            meta=dict(epoch=epoch, iter=done))
        text = f"; saved '{path}', from which --resume continues"
    except OSError as e:  # on rank 0
        text = f'; cannot save a checkpoint: {e}'
    barrier()  # rank 0 may still write
    return text
