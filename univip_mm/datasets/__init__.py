from .coco_multi_label import CocoMultiLabel
from .proposal_coco import ProposalCocoDataset
from .transforms import OverlapSceneCrop

__all__ = ['CocoMultiLabel', 'OverlapSceneCrop', 'ProposalCocoDataset']
