"""Picture of what the network of a run will see."""
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ..datasets.wrappers import set_epoch
from ..visualization import draw_scene_grid
from ..visualization.training_views import (
    augmented_views,
    draw_samples,
    open_config,
)
from .run_folder import RunFolder

SHOWN = 4  # images


def draw_views(run: RunFolder) -> None:
    """Draw the views of some images in the first epoch to OUT/views.png."""
    cfg = Config.fromfile(run.config)
    seed = cfg.get('randomness', {}).get('seed') or 0
    init_default_scope('univip_mm')
    (dataset, _, pack), preprocessor = open_config(cfg)
    set_epoch(dataset, seed, 0)
    picked = np.random.default_rng(seed).permutation(len(dataset))[:SHOWN]
    samples = [dataset[int(index)] for index in picked]
    draw_scene_grid(
        draw_samples(samples, augmented_views(samples, pack, preprocessor)),
        run.views)
