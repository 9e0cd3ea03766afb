"""Instance-instance discrimination by optimal transport (paper, Sec. 3.3)."""
import math
from typing import Optional

import torch
from torch import nn

from ..registry import MODELS
from .l2_normalize import at_least_float32, l2_normalize

# The scaling form multiplies numbers up to exp(2 * exponent), so float32
# (largest number exp(88)) holds it safely up to this exponent.
_LARGEST_EXPONENT = 30.0


def sinkhorn(cost: torch.Tensor,
             supply: torch.Tensor,
             demand: torch.Tensor,
             epsilon: float = 0.1,
             num_iters: int = 50,
             largest_cost: Optional[float] = None) -> torch.Tensor:
    """Entropic transport plans by Sinkhorn-Knopp, a batch at once.

    With G = exp(-cost / epsilon) and u = 1, each iteration sets
    v = demand / (G^T u), then u = supply / (G v); the plan is
    diag(u) G diag(v). The last update is u's, so the rows of the plan sum to
    the supply exactly and its columns to the demand as far as the iteration
    has converged. Where ``largest_cost / epsilon`` is unknown or too large for
    float32, the same iteration runs on logarithms, in float64.

    The order is that of OTA (https://arxiv.org/abs/2103.14259) and POT.

    Args:
        cost (Tensor): Cost of moving one unit from m to n, (B, M, N).
        supply (Tensor): Mass at each m, (B, M), non-negative, with a positive
            sum.
        demand (Tensor): Mass at each n, (B, N), of the same sum.
        epsilon (float): Weight of the entropy. Defaults to 0.1.
        num_iters (int): Number of iterations. Defaults to 50.
        largest_cost (float, optional): The costs are known to lie in
            [0, largest_cost], as 1 - cosine lies in [0, 2]; this picks the
            faster form without looking at them. Defaults to None, unknown.

    Returns:
        Tensor: Plans of shape (B, M, N), float32 or float64.
    """
    exponent = -at_least_float32(cost) / epsilon
    supply = at_least_float32(supply)
    demand = at_least_float32(demand)
    if (largest_cost is not None
            and largest_cost / epsilon <= _LARGEST_EXPONENT):
        kernel = exponent.exp()
        kernel_t = kernel.transpose(1, 2).contiguous()
        supply, demand = supply.unsqueeze(2), demand.unsqueeze(2)
        u = torch.ones_like(supply)
        for _ in range(num_iters):
            v = demand / torch.bmm(kernel_t, u)
            u = supply / torch.bmm(kernel, v)
        return u * kernel * v.transpose(1, 2)
    # An exponent of a thousand has three digits less after the point.
    exponent = exponent.double()
    log_supply, log_demand = supply.double().log(), demand.double().log()
    log_u = torch.zeros_like(log_supply)
    for _ in range(num_iters):
        log_v = log_demand - (exponent + log_u.unsqueeze(2)).logsumexp(dim=1)
        log_u = log_supply - (exponent + log_v.unsqueeze(1)).logsumexp(dim=2)
    log_plan = exponent + log_u.unsqueeze(2) + log_v.unsqueeze(1)
    return log_plan.exp().to(supply.dtype)


def marginal(instances: torch.Tensor,
             scene: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mass of each instance: its positive relevance to the scene, to sum one.

    Where no instance of an image has a positive relevance, all get the same.

    Args:
        instances (Tensor): Features of the instances, (B, K, C).
        scene (Tensor): Feature of the scene, (B, C).

    Returns:
        tuple[Tensor, Tensor]: The masses (B, K), and whether they are the
        uniform fall-back (B,), bool.
    """
    instances, scene = at_least_float32(instances), at_least_float32(scene)
    # Only the ratios between an image's instances count, so both sides are
    # first brought to a largest entry of one: no product can overflow.
    tiny = torch.finfo(instances.dtype).tiny
    instances = instances / instances.abs().amax(
        dim=(1, 2), keepdim=True).clamp_min(tiny)
    scene = scene / scene.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    relevance = torch.einsum('bkc,bc->bk', instances, scene).clamp_min(0)
    total = relevance.sum(dim=1, keepdim=True)
    is_uniform = total < tiny
    mass = torch.where(is_uniform, 1 / relevance.shape[1],
                       relevance / total.clamp_min(tiny))
    return mass, is_uniform.squeeze(1)


@MODELS.register_module()
class SinkhornOTLoss(nn.Module):
    r"""Instance-instance loss: similarity under the optimal transport plan.

    .. math::
        L_{ii} = -\sum_{mn} \cos(o_m, t_n)\, \tilde y_{mn}

    The plan :math:`\tilde y` moves the supply
    :math:`b_m \propto \max(o_m \cdot \bar f_t, 0)` to the demand
    :math:`a_n \propto \max(t_n \cdot \bar f_o, 0)` at the cost
    :math:`1 - \cos(o_m, t_n)`. Both sum to one for each image, so the loss
    lies in [-1, 1]. The plan is a constant to the gradient, which reaches the
    online instances alone. Computed in float32 with autocast off, and finite
    with a finite gradient for every finite input. See ``docs/decisions.md``
    for what the paper leaves open.

    Args:
        epsilon (float): Weight of the entropy, > 0. Defaults to 0.1 (OTA).
        num_iters (int): Sinkhorn iterations, >= 1. Defaults to 50 (OTA).
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Attributes:
        statistics (dict[str, Tensor]): Of the last call, detached scalars for
            the log: ``plan_entropy``, the plan's entropy over its largest
            value 2 log K (1 where everything goes everywhere), and
            ``uniform_marginals``, the share of marginals that fell back to
            uniform.
    """

    def __init__(self,
                 epsilon: float = 0.1,
                 num_iters: int = 50,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError('SinkhornOTLoss: epsilon must be above 0, but is '
                             f'{epsilon}; the paper takes 0.1')
        if num_iters < 1:
            raise ValueError('SinkhornOTLoss: num_iters must be at least 1, '
                             f'but is {num_iters}; the paper takes 50')
        self.epsilon = epsilon
        self.num_iters = num_iters
        self.loss_weight = loss_weight
        self.statistics: dict[str, torch.Tensor] = {}

    def forward(self, online_instances: torch.Tensor,
                target_instances: torch.Tensor, online_scene: torch.Tensor,
                target_scene: torch.Tensor) -> torch.Tensor:
        """Mean of the loss over the batch.

        Args:
            online_instances (Tensor): o, (B, K, C).
            target_instances (Tensor): t, (B, K, C).
            online_scene (Tensor): Mean of the two views' f_o, (B, C).
            target_scene (Tensor): Mean of the two views' f_t, (B, C).

        Returns:
            Tensor: The loss, a scalar.
        """
        with torch.autocast(online_instances.device.type, enabled=False):
            similarity = torch.einsum('bmc,bnc->bmn',
                                      l2_normalize(online_instances),
                                      l2_normalize(target_instances.detach()))
            with torch.no_grad():
                supply, no_supply = marginal(online_instances, target_scene)
                demand, no_demand = marginal(target_instances, online_scene)
                plan = sinkhorn(1 - similarity, supply, demand, self.epsilon,
                                self.num_iters, largest_cost=2.0)
                self._note_statistics(plan, no_supply, no_demand)
            loss = -(similarity * plan).sum(dim=(1, 2)).mean()
        return self.loss_weight * loss

    def _note_statistics(self, plan: torch.Tensor, no_supply: torch.Tensor,
                         no_demand: torch.Tensor) -> None:
        entropy = torch.special.entr(plan).sum(dim=(1, 2)).mean()
        largest = max(2 * math.log(plan.shape[1]), 1e-6)  # K = 1 has none
        self.statistics = dict(
            plan_entropy=entropy / largest,
            uniform_marginals=torch.stack([no_supply,
                                           no_demand]).float().mean())
