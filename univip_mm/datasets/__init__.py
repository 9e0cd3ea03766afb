from .proposal_coco import ProposalCocoDataset
from .transforms import OverlapSceneCrop

__all__ = ['OverlapSceneCrop', 'ProposalCocoDataset']
