"""Benchmarks of pre-training checkpoints with mmdet, mmseg and mmpretrain.

Importing this package registers the components that the configs in
configs/benchmarks/ use.
"""
from ..evaluation import feature_metrics  # noqa: F401
from . import heads, set_split  # noqa: F401
