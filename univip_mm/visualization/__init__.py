"""Pictures of the data, the training, and the features.

This package imports NumPy and Matplotlib only. The modules ``training_views``,
``inspection`` and ``analysis`` need PyTorch; import them by name.
"""
from .curves import (
    HEALTH,
    LOWER_BOUNDS,
    plot_growth,
    plot_loss_curves,
    read_scalars,
    smooth,
)
from .features import (
    NeighbourRow,
    SimilarityRow,
    draw_neighbours,
    draw_points,
    draw_similarity,
)
from .proposals import (
    draw_image_grid,
    draw_proposal_histograms,
    draw_proposals,
)
from .transport import PlanRow, draw_transport
from .views import draw_scene_grid, draw_scenes, scene_grid

__all__ = [
    'HEALTH', 'LOWER_BOUNDS', 'NeighbourRow', 'PlanRow', 'SimilarityRow',
    'draw_image_grid', 'draw_neighbours', 'draw_points',
    'draw_proposal_histograms', 'draw_proposals', 'draw_scene_grid',
    'draw_scenes', 'draw_similarity', 'draw_transport', 'plot_growth',
    'plot_loss_curves', 'read_scalars', 'scene_grid', 'smooth'
]
