"""Instance-instance discrimination by optimal transport (paper, Sec. 3.3)."""
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..registry import MODELS
from .l2_normalize import at_least_float32, l2_normalize
from .sinkhorn_solver import sinkhorn


def marginal(instances: Tensor, scene: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mass of instances (B, K, C) in a scene (B, C).

    The mass is the positive part of the dot product, normalized to sum 1 per
    image. If no instance of an image has a positive part, the mass is
    uniform, 1 / K.

    Returns:
        tuple[Tensor, Tensor]: Masses (B, K), and a bool mask (B,) of the
        images with the uniform fallback.
    """
    instances, scene = at_least_float32(instances), at_least_float32(scene)
    # Only the ratios within an image matter. Dividing both sides by their
    # largest entry keeps the products from overflowing.
    tiny = torch.finfo(instances.dtype).tiny
    instances = instances / _largest(instances, (1, 2)).clamp_min(tiny)
    scene = scene / _largest(scene, (1, )).clamp_min(tiny)
    relevance = torch.bmm(instances, scene.unsqueeze(2)).squeeze(2)
    relevance = relevance.clamp_min(0)
    total = relevance.sum(dim=1, keepdim=True)
    is_uniform = total < tiny
    mass = torch.where(is_uniform, 1 / relevance.shape[1],
                       relevance / total.clamp_min(tiny))
    return mass, is_uniform.squeeze(1)


def _largest(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the largest absolute value over the dimensions, kept as 1."""
    return torch.linalg.vector_norm(x, math.inf, dims, keepdim=True)


class TransportPlan(NamedTuple):
    """Transport between the online and the target instances of each image."""
    similarity: Tensor  # cos(o_m, t_n), (B, M, N), has a gradient
    plan: Tensor  # mass moved from m to n, (B, M, N)
    supply: Tensor  # mass of each online instance, (B, M)
    demand: Tensor  # mass of each target instance, (B, N)
    uniform_supply: Tensor  # images with the uniform fallback, (B,), bool
    uniform_demand: Tensor  # the same for the demand


@MODELS.register_module()
class SinkhornOTLoss(nn.Module):
    r"""Instance-instance loss: similarity under the optimal transport plan.

    .. math::
        L_{ii} = -\sum_{mn} \cos(o_m, t_n)\, \tilde y_{mn}

    The plan :math:`\tilde y` moves the supply
    :math:`b_m \propto \max(o_m \cdot \bar f_t, 0)` to the demand
    :math:`a_n \propto \max(t_n \cdot \bar f_o, 0)` at the cost
    :math:`1 - \cos(o_m, t_n)`. Supply and demand each sum to 1 per image, so
    the loss lies in [-1, 1]. By default, the plan is a constant for the
    gradient, as in OTA. Only the online instances get a gradient. The loss is
    computed in float32 with autocast off. Loss and gradient are finite for
    every finite input. ``docs/decisions.md`` lists what the paper leaves open.

    A subclass overrides :meth:`loss_and_log_vars`, which :class:`UniVIP`
    calls.

    Args:
        epsilon (float): Weight of the entropy, > 0. Defaults to 0.1, the
            value of OTA. The UniVIP paper states none.
        num_iters (int): Sinkhorn iterations, >= 1. Defaults to 50, the value
            of OTA.
        loss_weight (float): Factor of the loss, for use outside of UniVIP.
            Within UniVIP, prefer ``loss_weights``. Defaults to 1.0.
        plan_gradient (bool): Differentiate the plan too, as DeepEMD's QPTH
            solver does (https://arxiv.org/abs/2003.06777). The gradient
            passes through the costs and all iterations, in float64. Supply
            and demand stay constants. Defaults to False.

    Raises:
        TypeError: A subclass overrides ``forward``, which UniVIP does not
            call.
        ValueError: ``epsilon`` or ``num_iters`` is out of range.
    """

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if 'forward' in vars(cls):
            raise TypeError(
                f'{cls.__name__} overrides SinkhornOTLoss.forward, which '
                'UniVIP does not call: override loss_and_log_vars instead')

    def __init__(self, epsilon: float = 0.1, num_iters: int = 50,
                 loss_weight: float = 1.0,
                 plan_gradient: bool = False) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f'SinkhornOTLoss: epsilon is {epsilon}: set a '
                             'value above 0, such as 0.1 (OTA)')
        if num_iters < 1:
            raise ValueError(f'SinkhornOTLoss: num_iters is {num_iters}: set '
                             'a value of at least 1, such as 50 (OTA)')
        self.epsilon = epsilon
        self.num_iters = num_iters
        self.loss_weight = loss_weight
        self.plan_gradient = plan_gradient

    def forward(self, online_instances: Tensor, target_instances: Tensor,
                online_scene: Tensor, target_scene: Tensor) -> Tensor:
        """Return the loss, a scalar: the mean over the batch.

        Args:
            online_instances (Tensor): o, (B, K, C).
            target_instances (Tensor): t, (B, K, C).
            online_scene (Tensor): Mean of both views' f_o, (B, C).
            target_scene (Tensor): Mean of both views' f_t, (B, C).
        """
        return self.loss_and_log_vars(online_instances, target_instances,
                                      online_scene, target_scene)[0]

    def loss_and_log_vars(
        self, online_instances: Tensor, target_instances: Tensor,
        online_scene: Tensor, target_scene: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of :meth:`forward` and the scalars for the log.

        The scalars have no gradient: ``plan_entropy``, the entropy of the
        plan divided by its maximum 2 log K (1 for a uniform plan), and
        ``uniform_marginals``, the share of marginals with the uniform
        fallback.
        """
        transport = self.plan(online_instances, target_instances,
                              online_scene, target_scene)
        similarity, plan = transport.similarity, transport.plan
        batch_size, num_instances = plan.shape[:2]
        loss = (similarity * plan).sum() * (-self.loss_weight / batch_size)
        max_entropy = max(2 * math.log(num_instances), 1e-6)  # K = 1: zero
        entropy = torch.special.entr(plan.detach()).sum()
        fallbacks = torch.cat(
            [transport.uniform_supply, transport.uniform_demand])
        return loss, dict(
            plan_entropy=entropy / (batch_size * max_entropy),
            uniform_marginals=fallbacks.mean(dtype=torch.float32))

    def plan(self, online_instances: Tensor, target_instances: Tensor,
             online_scene: Tensor, target_scene: Tensor) -> TransportPlan:
        """Compute the transport plan for the arguments of :meth:`forward`."""
        o, t = online_instances, target_instances
        with torch.autocast(o.device.type, enabled=False):
            # Both branches in one call, for fewer operations. The threshold
            # of zero vectors depends on the type.
            both = torch.cat([o, t.detach()])
            o, t = (l2_normalize(both).chunk(2) if o.dtype == t.dtype else
                    (l2_normalize(o), l2_normalize(t)))
            similarity = torch.bmm(o, t.detach().transpose(1, 2))
            with torch.no_grad():
                masses, is_uniform = marginal(
                    both, torch.cat([target_scene, online_scene]))
                supply, demand = masses.chunk(2)
            # Without the bound, the iteration runs on logarithms, whose
            # gradient cannot overflow.
            with torch.set_grad_enabled(
                    self.plan_gradient and torch.is_grad_enabled()):
                plan = sinkhorn(
                    1 - similarity, supply, demand, self.epsilon,
                    self.num_iters,
                    largest_cost=None if self.plan_gradient else 2.0)
        return TransportPlan(similarity, plan, supply, demand,
                             *is_uniform.chunk(2))
