"""Pictures of the data, the training and the features."""
from .pictures import (
    HEALTH,
    LOWER_BOUNDS,
    draw_contact_sheet,
    draw_proposal_histograms,
    draw_proposals,
    draw_scene_sheet,
    draw_scenes,
    plot_growth,
    plot_loss_curves,
    read_scalars,
    scene_sheet,
    smooth,
)

__all__ = [
    'HEALTH', 'LOWER_BOUNDS', 'draw_contact_sheet', 'draw_proposal_histograms',
    'draw_proposals', 'draw_scene_sheet', 'draw_scenes', 'plot_growth',
    'plot_loss_curves', 'read_scalars', 'scene_sheet', 'smooth'
]
