"""Linear classifiers on each stage of a frozen ResNet."""
from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import nn

from ..registry import MODELS

# Average pooling of the stem's and the four stages' maps of a 224-pixel image,
# to about 9000 values each for a ResNet-50: Goyal et al. 2019
# (https://arxiv.org/abs/1905.01235), as in OpenSelfSup's and ORL's
# MultiPooling. The last number is the side of the result.
POOLS = ((dict(kernel_size=10, stride=10, padding=4), 12),
         (dict(kernel_size=16, stride=8), 6), (dict(kernel_size=13, stride=5),
                                               4),
         (dict(kernel_size=8, stride=3), 3), (dict(kernel_size=6, stride=1),
                                              2))


@MODELS.register_module()
class ResNetWithStem(MODELS.get('ResNet')):
    """The host's ResNet, which also gives the stem's feature map: its output
    is (stem after ReLU, stage 1, ..., stage 4)."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = [self.relu(self.norm1(self.conv1(x)))]
        x = self.maxpool(outputs[0])
        for name in self.res_layers:
            x = getattr(self, name)(x)
            outputs.append(x)
        return tuple(outputs)


@MODELS.register_module()
class StageHeads(BaseModule):
    """A linear classifier on each of some stages, trained at the same time and
    independently of each other, since the backbone below is frozen.

    Each pools its feature map, normalises it without a learned scale, and
    classifies what is left. Writes a field ``stageN`` for each to the data
    samples, which ``MultiTasksMetric`` reads.

    Args:
        num_classes (int): Number of classes.
        in_channels (Sequence[int]): Channels of the stem and of the stages.
            Defaults to ResNet-50's.
        stages (Sequence[int]): Which to classify; 0 is the stem. Defaults to
            all five.
        norm_cfg (dict): Kind of the normalisation.
        init_cfg (dict, optional): Of the linear layers.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int] = (64, 256, 512, 1024, 2048),
        stages: Sequence[int] = (0, 1, 2, 3, 4),
        norm_cfg: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(
            init_cfg or dict(type='Normal', std=0.01, layer='Linear'))
        batch_norm = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}
        kind = (norm_cfg or dict(type='BN'))['type']
        if kind not in batch_norm:
            raise ValueError(f"StageHeads: norm_cfg.type is '{kind}', but "
                             'must be BN or SyncBN')
        self.stages = tuple(stages)
        self.norms = nn.ModuleList(batch_norm[kind](
            in_channels[stage], affine=False) for stage in self.stages)
        self.classifiers = nn.ModuleList(
            nn.Linear(in_channels[stage] * POOLS[stage][1]**2, num_classes)
            for stage in self.stages)

    def forward(self, feats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Logits (B, L) of each stage, of feature maps (B, C, H, W)."""
        logits = []
        for stage, norm, classifier in zip(self.stages, self.norms,
                                           self.classifiers):
            options, side = POOLS[stage]
            pooled = F.avg_pool2d(feats[stage], **options)
            if pooled.shape[2:] != (side, side):
                raise ValueError(
                    'StageHeads: the protocol pools images of 224 x 224 '
                    f'pixels, but stage {stage} is of '
                    f'{"x".join(map(str, feats[stage].shape[2:]))}: crop to '
                    '224 in the pipelines')
            logits.append(classifier(norm(pooled).flatten(1)))
        return logits

    def loss(self, feats: Sequence[torch.Tensor],
             data_samples: list[BaseDataElement]) -> dict[str, torch.Tensor]:
        """Cross entropy of each stage; their sum trains."""
        target = torch.cat([sample.gt_label for sample in data_samples])
        return {
            f'stage{stage}_loss': F.cross_entropy(logits, target)
            for stage, logits in zip(self.stages, self(feats))
        }

    def predict(self, feats: Sequence[torch.Tensor],
                data_samples: list[BaseDataElement]) -> list[BaseDataElement]:
        """Write the scores of each stage, beside the right answer."""
        for stage, logits in zip(self.stages, self(feats)):
            for sample, score in zip(data_samples, logits.softmax(1)):
                sample.set_field(
                    dict(
                        eval_mask=True,
                        gt_label=sample.gt_label,
                        pred_score=score), f'stage{stage}')
        return data_samples
