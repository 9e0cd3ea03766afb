from typing import Optional

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ...registry import HOOKS


@HOOKS.register_module()
class ViewSheetHook(Hook):
    """Logs a sheet of what the network sees, as ``views``, by the Runner's
    visualizer, and so to each of its back ends: photographs with proposals,
    scenes, overlap and instances, the views, and the same views after
    augmentation, pixel for pixel as the network got them in that epoch.

    The same images are drawn each time, spread over the data set. Nothing is
    drawn at random, and the training has the same bits with and without it.
    It needs views that are a function of (seed, epoch, image), and so
    :class:`EpochSampler`, and :class:`OverlapSceneCrop`; without them it says
    so once, and does nothing. A picture that cannot be made is a warning.

    Args:
        interval (int): Epochs from one sheet to the next; the first is that
            of the first epoch. 0 is never. Defaults to 50.
        num_images (int): Rows of the sheet. Defaults to 4.

    Raises:
        ValueError: An argument is out of its range.
    """
    priority = 'LOW'

    def __init__(self, interval: int = 50, num_images: int = 4) -> None:
        if interval < 0 or num_images < 1:
            raise ValueError(
                f'ViewSheetHook: interval is {interval} and num_images '
                f'{num_images}: give at least 0 and 1')
        self.interval = interval
        self.num_images = num_images
        self._is_off = interval == 0

    def before_train(self, runner) -> None:
        """Whether the data has what is drawn."""
        loader = runner.train_dataloader
        missing = _missing(loader.dataset)
        if missing and not self._is_off:
            self._is_off = True
            runner.logger.info(f'no sheets of views: {missing}')

    @master_only
    def after_train_epoch(self, runner) -> None:
        """Draw, where it is an epoch for it."""
        if self._is_off or runner.epoch % self.interval:
            return
        try:
            sheet = self.draw(runner)
        except Exception as e:  # a picture is not worth a training
            self._is_off = True
            runner.logger.warning(
                f'no more sheets of views: {type(e).__name__}: {e}')
            return
        # Under the number that the log has for the epoch.
        runner.visualizer.add_image('views', sheet, step=runner.epoch + 1)

    def draw(self, runner) -> np.ndarray:
        """The sheet of the current epoch, (height, width, 3) uint8, RGB."""
        # Slow to import, and not needed where nothing is drawn.
        from ...visualization import scene_grid
        from ...visualization.training_views import (
            augmented_views,
            draw_samples,
            open_views,
        )
        source = open_views(runner.train_dataloader.dataset)
        picked = np.linspace(0, len(source.dataset) - 1, self.num_images)
        samples = [source.dataset[i] for i in sorted(set(map(int, picked)))]
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        return scene_grid(
            draw_samples(
                samples,
                augmented_views(samples, source.pack,
                                model.data_preprocessor)))


def _missing(dataset) -> Optional[str]:
    """What the sheets need and this data set has not."""
    from ...visualization.training_views import open_views
    try:
        open_views(dataset)
    except ValueError as e:
        return str(e)
    if 'view_seed' not in dataset.get_data_info(0):
        return 'they need sampler=dict(type="EpochSampler")'
    return None
