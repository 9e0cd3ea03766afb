"""A fourth loss term that keeps the instances of an image apart."""
import torch

from univip_mm.models import SinkhornOTLoss
from univip_mm.models.l2_normalize import l2_normalize
from univip_mm.registry import MODELS


@MODELS.register_module()
class SpreadInstanceLoss(SinkhornOTLoss):
    """Instance-instance loss of the paper plus a spread term.

    The spread term is the mean cosine between the online features of
    different instances of an image.

    Args:
        spread_weight (float): Factor of the spread term. Defaults to 0.1.
        **kwargs: Arguments of SinkhornOTLoss.
    """

    def __init__(self, spread_weight: float = 0.1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.spread_weight = spread_weight

    def loss_and_log_vars(
        self, online_instances: torch.Tensor, *others: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and the scalars for the log.

        Args:
            online_instances (Tensor): Online features, (B, K, C).
            *others (Tensor): The other arguments of SinkhornOTLoss.
        """
        loss, log_vars = super().loss_and_log_vars(online_instances, *others)
        # Use float32 like the terms of the paper, also in mixed precision.
        with torch.autocast(online_instances.device.type, enabled=False):
            o = l2_normalize(online_instances)
            cosines = o @ o.transpose(1, 2)
            k = o.shape[1]
            spread = (cosines.sum((1, 2)) - k).mean() / max(k * (k - 1), 1)
        log_vars['instance_cosine'] = spread.detach()
        return loss + self.spread_weight * spread, log_vars
