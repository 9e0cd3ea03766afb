"""Benchmarks of pre-training checkpoints with mmdet, mmseg and mmpretrain.

Importing this package registers the components that the configs in
configs/benchmarks/ use.
"""
from ..evaluation.feature_metrics import KNNAccuracy, LinearSVMProbe
from .heads import FeatureHead, MultiStageLinearHead
from .resnet_with_stem import ResNetWithStem
from .set_split import SetSplit

__all__ = [
    'FeatureHead', 'KNNAccuracy', 'LinearSVMProbe', 'MultiStageLinearHead',
    'ResNetWithStem', 'SetSplit'
]
