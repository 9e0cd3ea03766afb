"""Heads on a frozen backbone, and a ResNet with features of the stem."""
from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import nn

from ..models.pooling import pool
from ..registry import MODELS

# Average pooling of the stem and the four stages for 224-pixel images, with
# the side of each pooled map. A ResNet-50 gets about 9000 values per stage:
# Goyal et al. 2019 (https://arxiv.org/abs/1905.01235), as in MultiPooling of
# OpenSelfSup and ORL.
POOLS = (
    (dict(kernel_size=10, stride=10, padding=4), 12),
    (dict(kernel_size=16, stride=8), 6),
    (dict(kernel_size=13, stride=5), 4),
    (dict(kernel_size=8, stride=3), 3),
    (dict(kernel_size=6, stride=1), 2),
)


@MODELS.register_module()
class FeatureHead(BaseModule):
    """Head without parameters that writes ``feature`` to the data samples.

    The metrics of :mod:`univip_mm.evaluation` fit their classifiers on these
    features.

    Args:
        pool (dict, optional): Arguments of ``avg_pool2d`` for the last feature
            map. Defaults to None, which means global average pooling.
    """

    def __init__(self, pool: Optional[dict] = None) -> None:
        super().__init__()
        self.pool = pool

    def predict(self, feats: tuple[torch.Tensor, ...],
                data_samples: list[BaseDataElement]) -> list[BaseDataElement]:
        """Pool the last feature map (B, C, H, W) to one vector per sample."""
        features = (pool(feats) if self.pool is None else
                    F.avg_pool2d(feats[-1], **self.pool).flatten(1))
        for sample, feature in zip(data_samples, features):
            sample.set_field(feature, 'feature')
        return data_samples


@MODELS.register_module()
class MultiStageLinearHead(BaseModule):
    """Linear classifiers on several stages of a frozen ResNet.

    Each classifier pools the feature map of a stage, applies batch
    normalization without affine parameters, and classifies the result. The
    classifiers are independent because the backbone is frozen. The scores of
    stage N are written to the field ``stageN`` of the data samples, which
    ``MultiTasksMetric`` reads.

    Args:
        num_classes (int): Number of classes.
        in_channels (Sequence[int]): Channels of the stem and the four stages.
            Defaults to the channels of ResNet-50.
        stages (Sequence[int]): Stages to classify; 0 is the stem. Defaults to
            all five.
        norm_cfg (dict, optional): ``dict(type='BN')`` or
            ``dict(type='SyncBN')``. Defaults to None, which means BN.
        init_cfg (dict, optional): Initialization of the linear layers.
            Defaults to None, which means a normal distribution of std 0.01.

    Raises:
        ValueError: ``norm_cfg`` has another type, or (in ``forward``) the
            images do not have 224 x 224 pixels.
    """

    def __init__(self, num_classes: int,
                 in_channels: Sequence[int] = (64, 256, 512, 1024, 2048),
                 stages: Sequence[int] = (0, 1, 2, 3, 4),
                 norm_cfg: Optional[dict] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(
            init_cfg or dict(type='Normal', std=0.01, layer='Linear'))
        batch_norm = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}
        kind = (norm_cfg or dict(type='BN'))['type']
        if kind not in batch_norm:
            raise ValueError(f"MultiStageLinearHead: norm_cfg.type is '{kind}'"
                             ', but must be BN or SyncBN')
        self.stages = tuple(stages)
        self.norms = nn.ModuleList(batch_norm[kind](
            in_channels[stage], affine=False) for stage in self.stages)
        self.classifiers = nn.ModuleList(
            nn.Linear(in_channels[stage] * POOLS[stage][1]**2, num_classes)
            for stage in self.stages)

    def forward(self, feats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the logits (B, L) of each stage.

        ``feats`` are the maps (B, C, H, W) of the stem and the four stages.
        """
        logits = []
        for stage, norm, classifier in zip(self.stages, self.norms,
                                           self.classifiers):
            options, side = POOLS[stage]
            pooled = F.avg_pool2d(feats[stage], **options)
            if pooled.shape[2:] != (side, side):
                size = 'x'.join(map(str, feats[stage].shape[2:]))
                raise ValueError(
                    'MultiStageLinearHead: the protocol needs images of 224 x '
                    f'224 pixels, but the feature map of stage {stage} is '
                    f'{size}: crop to 224 in the pipelines')
            logits.append(classifier(norm(pooled).flatten(1)))
        return logits

    def loss(self, feats: Sequence[torch.Tensor],
             data_samples: list[BaseDataElement]) -> dict[str, torch.Tensor]:
        """Return the cross-entropy loss of each stage, ``stageN_loss``."""
        target = torch.cat([sample.gt_label for sample in data_samples])
        return {f'stage{stage}_loss': F.cross_entropy(logits, target)
                for stage, logits in zip(self.stages, self(feats))}

    def predict(self, feats: Sequence[torch.Tensor],
                data_samples: list[BaseDataElement]) -> list[BaseDataElement]:
        """Write the scores and the label of each stage to the data samples."""
        for stage, logits in zip(self.stages, self(feats)):
            for sample, score in zip(data_samples, logits.softmax(1)):
                sample.set_field(
                    dict(eval_mask=True, gt_label=sample.gt_label,
                         pred_score=score), f'stage{stage}')
        return data_samples


@MODELS.register_module()
class ResNetWithStem(MODELS.get('ResNet')):
    """ResNet of the host with the outputs (stem, stage 1, ..., stage 4).

    The stem's output is the map between the ReLU and the max pooling.
    """

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the five feature maps of images (B, 3, H, W)."""
        outputs = [self.relu(self.norm1(self.conv1(x)))]
        x = self.maxpool(outputs[0])
        for name in self.res_layers:
            x = getattr(self, name)(x)
            outputs.append(x)
        return tuple(outputs)
