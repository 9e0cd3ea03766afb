"""From a pre-training checkpoint to the benchmarks of the field, by the tools
and configs of mmdet, mmseg and mmpretrain. Importing it registers the parts
that the configs in configs/benchmarks/ name."""
from ..evaluation.feature_metrics import KNNAccuracy, LinearSVMProbe
from .features import FeatureHead, MarkSplit
from .stage_heads import ResNetWithStem, StageHeads

__all__ = [
    'FeatureHead', 'KNNAccuracy', 'LinearSVMProbe', 'MarkSplit',
    'ResNetWithStem', 'StageHeads'
]
