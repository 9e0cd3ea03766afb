"""Data sets, their sampler and their transforms."""
from .coco_multi_label import CocoMultiLabel
from .collate import collate_views
from .epoch_sampler import EpochSampler
from .proposal_coco import ProposalCocoDataset
from .transforms import LoadEncodedImage, OverlapSceneCrop
from .wrappers import RepeatDataset

__all__ = [
    'CocoMultiLabel', 'EpochSampler', 'LoadEncodedImage', 'OverlapSceneCrop',
    'ProposalCocoDataset', 'RepeatDataset', 'collate_views'
]
