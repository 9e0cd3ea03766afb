"""Report of images that could not be used."""
import os.path as osp
from collections import Counter

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook

from ...io.atomic import open_to_append
from ...io.images import REASONS, TOO_SMALL, TooManyUnreadableError
from ...registry import HOOKS
from ...utils.text import printable

FILE = 'skipped_images.txt'
TOO_SMALL_CODE = 1 + REASONS.index(TOO_SMALL)


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Hook that reports skipped images and limits the unreadable ones.

    After an epoch, the hook logs the number of images for each reason, over
    all ranks, and the first paths. It logs nothing if no image was skipped
    since the last epoch. ``skipped_images.txt`` in the log folder lists all
    images, with a path and a reason in each line. Control characters of a
    path are escaped.

    Images smaller than the data set's ``min_image_size`` are reported, but do
    not count towards the limit.

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
        self._own = self._of_all = None

    def after_train_iter(self, runner, batch_idx: int, data_batch=None,
                         outputs=None) -> None:
        """Check every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._check(runner)

    def after_train_epoch(self, runner) -> None:
        """Check, and log the images skipped so far."""
        self._check(runner)
        if self._of_all is None or not self._of_all.any():
            return
        small = self._of_all == TOO_SMALL_CODE
        for codes, what in (
                (self._of_all * ~small, 'could not be read so far'),
                (self._of_all * small, 'were too small')):
            if codes.any():
                # MMEngine's logger drops a warning that repeats.
                runner.logger.warning(self._describe(runner, codes, what))

    def _check(self, runner) -> None:
        """Merge the skipped images of all ranks and check their number."""
        dataset = runner.train_dataloader.dataset
        if not hasattr(dataset, 'skipped'):
            return
        own = dataset.skipped.clone()  # the workers may change it meanwhile
        if self._own is None:
            self._own, self._of_all = own * 0, own * 0
        is_new = (own != self._own).any().float()
        all_reduce(is_new, op='max')
        if not is_new:
            return
        before, self._own, self._of_all = self._of_all, own, own.clone()
        all_reduce(self._of_all, op='max')
        path = osp.join(runner.log_dir, FILE)
        if get_rank() == 0:
            try:
                self._append(path, dataset,
                             (self._of_all != before).nonzero().flatten())
            except OSError as e:
                runner.logger.warning(
                    printable(f"cannot write '{path}': {e}"))
        unreadable = self._of_all * (self._of_all != TOO_SMALL_CODE)
        if unreadable.count_nonzero() > self.max_unreadable * len(dataset):
            raise TooManyUnreadableError(
                self._describe(runner, unreadable, 'cannot be read')
                + '. max_unreadable of SkippedImagesHook is '
                f'{self.max_unreadable:.2%}: repair the images; or remove '
                'them from the annotation file and generate the proposals '
                'again; or increase max_unreadable')

    def _append(self, path: str, dataset, indices: torch.Tensor) -> None:
        with open_to_append(path) as file:
            for index in indices.tolist():
                path = printable(dataset.get_data_info(index)['img_path'])
                file.write(f'{path}\t{REASONS[self._of_all[index] - 1]}\n')

    def _describe(self, runner, codes: torch.Tensor, what: str) -> str:
        """Return the counts per reason, the first ten paths and the file."""
        dataset = runner.train_dataloader.dataset
        skipped = codes.nonzero().flatten()
        count = len(skipped)
        counts = sorted(Counter(codes[skipped].tolist()).items())
        reasons = ', '.join(f'{REASONS[code - 1]}: {x}' for code, x in counts)
        first = ', '.join(
            printable(dataset.get_data_info(index)['img_path'])
            for index in skipped[:10].tolist())
        return (f'{count} of {len(dataset)} images '
                f'({count / len(dataset):.2%}) {what} and were replaced by '
                f'others ({reasons}): {first}{", ..." if count > 10 else ""}; '
                f"all are in '{osp.join(runner.log_dir, FILE)}'")
