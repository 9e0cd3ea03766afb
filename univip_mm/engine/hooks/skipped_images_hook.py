from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from ...registry import HOOKS


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Says after an epoch how many images could not be read so far, on all
    ranks together. Silent where there was none, or no new one since the epoch
    before (MMEngine's logger repeats no warning)."""

    def after_train_epoch(self, runner) -> None:
        """Count, and log the share and the first of them."""
        dataset = runner.train_dataloader.dataset
        marks = getattr(dataset, 'is_unreadable', None)
        if marks is None:
            return
        marks = marks.clone()
        all_reduce(marks, op='max')
        skipped = marks.nonzero().flatten().tolist()
        if skipped:
            first = [
                dataset.get_data_info(index)['img_path']
                for index in skipped[:10]
            ]
            runner.logger.warning(
                f'{len(skipped)} of {len(dataset)} images '
                f'({len(skipped) / len(dataset):.2%}) could not be read so '
                f'far and were replaced by others: {", ".join(first)}'
                f'{", ..." if len(skipped) > len(first) else ""}')
