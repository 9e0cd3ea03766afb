import os.path as osp
from collections import Counter

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook

from ...io.images import REASONS, TOO_SMALL, TooManyUnreadableError
from ...registry import HOOKS

FILE = 'skipped_images.txt'


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Says which images were skipped so far and why, on all ranks together,
    and stops the training where too many cannot be read.

    After an epoch it logs how many there are for each reason, and the first
    of them; silent where there was none, or no new one since the epoch before
    (MMEngine's logger repeats no warning). All are listed, a path and a
    reason in each line, in ``skipped_images.txt`` beside the log.

    Images that are only smaller than the data set's ``min_image_size`` are
    listed, but do not count towards the limit.

    Args:
        max_unreadable (float): The share of the data set's images that may
            be unreadable. Where more are, all ranks stop with
            :class:`~univip_mm.io.images.TooManyUnreadableError`. Defaults to
            0.01.
        interval (int): Looks every so many iterations, and after each epoch:
            one reduction of a number, and of a byte for each image where a
            rank has a new one. Defaults to 50.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self, max_unreadable: float = 0.01,
                 interval: int = 50) -> None:
        if not 0 <= max_unreadable <= 1:
            raise ValueError('SkippedImagesHook: max_unreadable is a share '
                             f'from 0 to 1, not {max_unreadable}')
        if interval < 1:
            raise ValueError('SkippedImagesHook: interval must be at least 1, '
                             f'but is {interval}')
        self.max_unreadable = max_unreadable
        self.interval = interval
        self._own = self._of_all = None

    def after_train_iter(self, runner, batch_idx: int, data_batch=None,
                         outputs=None) -> None:
        """Look, every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._look(runner)

    def after_train_epoch(self, runner) -> None:
        """Look, and log what was skipped so far."""
        self._look(runner)
        if self._of_all is None or not self._of_all.any():
            return
        small = self._of_all == 1 + REASONS.index(TOO_SMALL)
        for marks, what in (
                (self._of_all * ~small, 'could not be read so far'),
                (self._of_all * small, 'turned out to be too small')):
            if marks.any():
                runner.logger.warning(self._describe(runner, marks, what))

    def _look(self, runner) -> None:
        """Bring what each rank's workers have noted together.

        Raises:
            TooManyUnreadableError: More images than allowed cannot be read;
                on all ranks.
        """
        dataset = runner.train_dataloader.dataset
        if not hasattr(dataset, 'skipped'):
            return
        own = dataset.skipped.clone()  # the workers go on
        if self._own is None:
            self._own, self._of_all = own * 0, own * 0
        is_new = (own != self._own).any().float()
        all_reduce(is_new, op='max')
        if not is_new:
            return
        before, self._own, self._of_all = self._of_all, own, own.clone()
        all_reduce(self._of_all, op='max')
        listed = osp.join(runner.log_dir, FILE)
        if get_rank() == 0:
            try:
                self._append(listed, dataset,
                             (self._of_all != before).nonzero().flatten())
            except OSError as e:
                runner.logger.warning(f"cannot write '{listed}': {e}")
        unreadable = self._of_all * (
            self._of_all != 1 + REASONS.index(TOO_SMALL))
        if unreadable.count_nonzero() > self.max_unreadable * len(dataset):
            raise TooManyUnreadableError(
                self._describe(runner, unreadable, 'cannot be read')
                + f'. max_unreadable of SkippedImagesHook is '
                f'{self.max_unreadable:.2%}: mend them, or list the images '
                'anew without them and make proposals for that list, or '
                'raise max_unreadable')

    def _append(self, path: str, dataset, indices: torch.Tensor) -> None:
        with open(path, 'a') as file:
            for index in indices.tolist():
                reason = REASONS[self._of_all[index] - 1]
                file.write(
                    f"{dataset.get_data_info(index)['img_path']}\t{reason}\n")

    def _describe(self, runner, marks: torch.Tensor, what: str) -> str:
        """How many for each reason, the first ten, and where all are."""
        dataset = runner.train_dataloader.dataset
        skipped = marks.nonzero().flatten()
        count = len(skipped)
        reasons = Counter(marks[skipped].tolist())
        first = [dataset.get_data_info(index)['img_path']
                 for index in skipped[:10].tolist()]
        return (
            f'{count} of {len(dataset)} images ({count / len(dataset):.2%}) '
            f'{what} and were replaced by others ('
            + ', '.join(f'{REASONS[code - 1]}: {number}'
                        for code, number in sorted(reasons.items()))
            + f'): {", ".join(first)}{", ..." if count > 10 else ""}; all '
            f"are in '{osp.join(runner.log_dir, FILE)}'")
