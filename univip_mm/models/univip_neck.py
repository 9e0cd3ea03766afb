"""Fusion layer of the instances (paper, Sec. 3.2)."""
from typing import Optional, Union

from mmengine.model import BaseModule
from torch import Tensor, nn

from ..registry import MODELS


def check_instance_count(found: float, expected: int, name: str) -> None:
    """Raise ValueError if the number of instances is not that of the fusion.

    ``name`` is the config key or input with ``found`` instances per image.
    """
    if found != expected:
        raise ValueError(
            f'{name} is {found:g}, but model.fusion_neck.num_instances is '
            f'{expected}: set num_instances of OverlapSceneCrop and of '
            'model.fusion_neck to the same value')


@MODELS.register_module()
class UniVIPNeck(BaseModule):
    """Fusion of the instances of an image into one feature (paper, Sec. 3.2).

    I = Linear(concat(o_1, ..., o_K)), K * C to C_out channels.

    Args:
        in_channels (int): Channels C of an instance feature. Defaults to 256.
        num_instances (int): Instances per image, K. Defaults to 4.
        out_channels (int): Channels C_out of the fused feature, equal to
            those of the projector. Defaults to 256.
        init_cfg (dict or list[dict], optional): Initialization config.
            Defaults to None, the initialization of ``nn.Linear``.
    """

    def __init__(self, in_channels: int = 256, num_instances: int = 4,
                 out_channels: int = 256,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.num_instances = num_instances
        self.fc = nn.Linear(num_instances * in_channels, out_channels)

    def forward(self, x: tuple[Tensor]) -> tuple[Tensor]:
        """Fuse the instances (B, K, C) to one feature (B, C_out).

        Raises:
            ValueError: K or C differs from the value in the config.
        """
        instances, = x
        check_instance_count(instances.shape[1], self.num_instances,
                             'UniVIPNeck: the number of instances per image')
        if instances.shape[2] != self.in_channels:
            raise ValueError(
                f'UniVIPNeck: the instances have {instances.shape[2]} channels'
                f', but in_channels is {self.in_channels}: set model.fusion_'
                'neck.in_channels to the out_channels of model.neck')
        return (self.fc(instances.flatten(1)), )
