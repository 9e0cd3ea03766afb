"""Models of the comparison: BYOL in UniVIP's code, and one start for all."""
from typing import Optional

import torch
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from univip_mm.models import UniVIP
from univip_mm.models.batch_norm import count_batches
from univip_mm.models.l2_normalize import at_least_float32
from univip_mm.models.univip import projection_std
from univip_mm.models.zero_sum_init import make_zero_sum
from univip_mm.registry import HOOKS, MODELS


@MODELS.register_module()
class SceneBYOL(UniVIP):
    """BYOL, with the code, the log and the graph of UniVIP.

    The only loss is UniVIP's scene-scene term: half the loss of the host's
    BYOL. So BYOL and UniVIP take equal steps by this term at the same
    learning rate and weight decay. The arguments are those of
    :class:`UniVIP`; its fusion and its instance loss are removed.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        del self.fusion_neck, self.instance_loss

    def loss(self, inputs: list[Tensor],
             data_samples: Optional[list[BaseDataElement]] = None,
             **kwargs) -> dict[str, Tensor]:
        """Compute the loss of two scenes, (B, 3, H, W) each."""
        losses, log_vars = self._losses_function()(
            inputs[:2], self._next_momentum(inputs[0].device))
        return {**losses, **log_vars}

    def losses(self, views: list[Tensor], momentum: Tensor
               ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the loss, and update the target, as in UniVIP.losses."""
        z1, z2 = (self.neck(self.backbone(view))[0] for view in views)
        count_batches(
            nn.ModuleList([self.backbone, self.neck, self.head]), passes=2)
        f_o1, f_o2 = (self.head.predictor([z])[0] for z in (z1, z2))
        self.target_net.move(
            nn.Sequential(self.backbone, self.neck), momentum)
        with torch.no_grad():
            f_t1, f_t2 = (self.target_net(view)[0] for view in views)
            count_batches(self.target_net, passes=2)
        with torch.autocast(z1.device.type, enabled=False):
            agree = self.head.loss_module
            f_o1, f_o2, f_t1, f_t2 = map(
                at_least_float32, (f_o1, f_o2, f_t1, f_t2))
            loss = agree(f_o1, f_t2) + agree(f_o2, f_t1)
        return dict(loss_scene=loss), dict(projection_std=projection_std(z1))


def initialize(model: nn.Module, seed: int, zero_sum: bool = True) -> None:
    """Initialize backbone, projector and predictor as a function of a seed.

    ``init_weights`` alone would give BYOL and UniVIP of the same seed other
    weights: UniVIP's fusion layer takes random numbers before the backbone.

    Args:
        model (nn.Module): Model, changed in place.
        seed (int): Seed of the weights.
        zero_sum (bool): Make the sum of each filter of the backbone zero.
            Defaults to True.
    """
    for number, part in enumerate((model.backbone, model.neck, model.head)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * seed + number)
            for layer in part.modules():
                if hasattr(layer, 'reset_parameters'):
                    layer.reset_parameters()
                if hasattr(layer, '_is_init'):
                    layer._is_init = False
            part.init_weights()
    if zero_sum:
        make_zero_sum(model.backbone)


@HOOKS.register_module()
class SameStartHook(Hook):
    """Hook that gives all methods of a seed the same initial weights.

    Args:
        seed (int): Seed of the weights.
        zero_sum (bool): See :func:`initialize`. Defaults to True.
    """

    def __init__(self, seed: int = 0, zero_sum: bool = True) -> None:
        self.seed = seed
        self.zero_sum = zero_sum

    def before_run(self, runner) -> None:
        """Initialize the model again; a resume replaces these weights."""
        initialize(runner.model, self.seed, self.zero_sum)
