from typing import Optional, Union

import torch
from mmengine.model import BaseModule
from torch import nn

from ..registry import MODELS


@MODELS.register_module()
class UniVIPNeck(BaseModule):
    """Fusion of an image's instances into one feature (paper, Sec. 3.2).

    I = Linear(concat(o_1, ..., o_K)), K * C to C_out.

    Args:
        in_channels (int): Channels C of an instance feature. Defaults to 256.
        num_instances (int): Instances K of an image. Defaults to 4.
        out_channels (int): Channels C_out of the fused feature, those of the
            projector. Defaults to 256.
        init_cfg (dict or list[dict], optional): Initialization config.
            Defaults to None, PyTorch's own for a linear layer.
    """

    def __init__(self,
                 in_channels: int = 256,
                 num_instances: int = 4,
                 out_channels: int = 256,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.num_instances = num_instances
        self.fc = nn.Linear(num_instances * in_channels, out_channels)

    def forward(self, x: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Fuse the instances.

        Args:
            x (tuple[Tensor]): One tensor of shape (B, K, C).

        Returns:
            tuple[Tensor]: One tensor of shape (B, C_out).

        Raises:
            ValueError: K or C is not what the neck was built for.
        """
        instances, = x
        if instances.shape[1:] != (self.num_instances, self.in_channels):
            raise ValueError(
                f'UniVIPNeck was built for {self.num_instances} instances of '
                f'{self.in_channels} channels and got '
                f'{tuple(instances.shape[1:])}: set fusion_neck.num_instances '
                'to that of OverlapSceneCrop, fusion_neck.in_channels to that '
                'of the projector')
        return (self.fc(instances.flatten(1)), )
