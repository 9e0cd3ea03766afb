"""A fourth term: the instances of an image shall not all become one."""
import torch

from univip_mm.models import SinkhornOTLoss
from univip_mm.models.l2_normalize import l2_normalize
from univip_mm.registry import MODELS


@MODELS.register_module()
class SpreadInstanceLoss(SinkhornOTLoss):
    """The paper's instance-instance loss, and the mean cosine between the
    online features of different instances of an image.

    Args:
        spread_weight (float): Of the second. Defaults to 0.1.
        **kwargs: Of SinkhornOTLoss.
    """

    def __init__(self, spread_weight: float = 0.1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.spread_weight = spread_weight

    def forward(self, online_instances: torch.Tensor, *others) -> torch.Tensor:
        """As SinkhornOTLoss: online instances (B, K, C) first."""
        transport = super().forward(online_instances, *others)
        # In float32, as the paper's terms, whatever the model runs in.
        with torch.autocast(online_instances.device.type, enabled=False):
            o = l2_normalize(online_instances)
            cosines = o @ o.transpose(1, 2)
            k = o.shape[1]
            spread = (cosines.sum((1, 2)) - k).mean() / max(k * (k - 1), 1)
        self.statistics['instance_cosine'] = spread.detach()  # in the log
        return transport + self.spread_weight * spread
