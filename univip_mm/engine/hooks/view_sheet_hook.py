"""Image grids of the training views in the log."""
from typing import Optional

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook

from ...registry import HOOKS
from ...utils.unwrap import unwrap_model


@HOOKS.register_module()
class ViewSheetHook(Hook):
    """Hook that logs a grid of training views, as the image ``views``.

    Each row shows one image: the photograph with its proposals, the scenes
    with the overlap and the instances, the views, and the augmented views,
    exactly as the network got them in this epoch. The Runner's visualizer
    sends the grid to each of its backends.

    All grids show the same images, evenly spaced in the data set. The hook
    uses no random numbers, so the training is bit-identical with and without
    it. The views must be a function of (seed, epoch, image), so the config
    needs :class:`EpochSampler` and :class:`OverlapSceneCrop`; without them the
    hook logs the reason once and does nothing. If drawing fails, the hook
    logs a warning and turns itself off.

    Args:
        interval (int): Epochs between two grids, from the first epoch on; 0
            turns the hook off. Defaults to 50.
        num_images (int): Rows of the grid. Defaults to 4.

    Raises:
        ValueError: An argument is out of its range.
    """
    priority = 'LOW'

    def __init__(self, interval: int = 50, num_images: int = 4) -> None:
        if interval < 0 or num_images < 1:
            raise ValueError(
                f'ViewSheetHook: interval is {interval} and num_images is '
                f'{num_images}, but they must be at least 0 and 1')
        self.interval = interval
        self.num_images = num_images
        self._is_off = interval == 0

    def before_train(self, runner) -> None:
        """Turn the hook off if the data has no reproducible views."""
        missing = _missing(runner.train_dataloader.dataset)
        if missing and not self._is_off:
            self._is_off = True
            runner.logger.info(f'no grids of views: {missing}')

    @master_only
    def after_train_epoch(self, runner) -> None:
        """Log a grid every ``interval`` epochs."""
        if self._is_off or runner.epoch % self.interval:
            return
        try:
            grid = self.draw(runner)
        except Exception as e:  # a picture must not stop the training
            self._is_off = True
            runner.logger.warning(
                f'no more grids of views: {type(e).__name__}: {e}')
            return
        # The log counts epochs from 1.
        runner.visualizer.add_image('views', grid, step=runner.epoch + 1)

    def draw(self, runner) -> np.ndarray:
        """Return the grid of the current epoch, (H, W, 3) uint8, RGB."""
        # Slow to import, so only if a grid is drawn.
        from ...visualization import scene_grid
        from ...visualization.training_views import (
            augmented_views,
            draw_samples,
            open_views,
        )
        source = open_views(runner.train_dataloader.dataset)
        picked = np.linspace(0, len(source.dataset) - 1, self.num_images)
        samples = [source.dataset[i] for i in sorted(set(map(int, picked)))]
        preprocessor = unwrap_model(runner.model).data_preprocessor
        return scene_grid(draw_samples(
            samples, augmented_views(samples, source.pack, preprocessor)))


def _missing(dataset) -> Optional[str]:
    """Return what the data lacks for reproducible views, or None."""
    from ...visualization.training_views import open_views
    try:
        open_views(dataset)
    except ValueError as e:
        return str(e)
    if 'view_seed' not in dataset.get_data_info(0):
        return 'they need sampler=dict(type="EpochSampler")'
    return None
