"""Frozen features of images, for the metrics that fit a classifier on them."""
from typing import Optional

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement

from ..registry import MODELS, TRANSFORMS


@MODELS.register_module()
class FeatureHead(BaseModule):
    """In the place of a classifier's head: writes ``feature`` to the data
    samples and trains nothing.

    Args:
        pool (dict, optional): Average pooling of the last feature map, as the
            arguments of ``avg_pool2d``. Defaults to None: the mean of it.
    """

    def __init__(self, pool: Optional[dict] = None) -> None:
        super().__init__()
        self.pool = pool

    def predict(self, feats: tuple[torch.Tensor, ...],
                data_samples: list[BaseDataElement]) -> list[BaseDataElement]:
        """Write the features, vectors of one size.

        Args:
            feats (tuple[Tensor]): Feature maps of the backbone, the last
                (B, C, H, W).
            data_samples (list): B data samples.
        """
        feature_map = feats[-1]
        features = (
            feature_map.mean((2, 3)) if self.pool is None else F.avg_pool2d(
                feature_map, **self.pool).flatten(1))
        for sample, feature in zip(data_samples, features):
            sample.set_field(feature, 'feature')
        return data_samples


@TRANSFORMS.register_module()
class MarkSplit:
    """Says what an image is for, where its data set does not: writes
    ``split``, 'train' or 'val'."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __call__(self, results: dict) -> dict:
        return dict(results, split=self.split)
