"""Peers of UniVIP whose losses run as the same kind of graph."""
from typing import Optional

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from univip_mm.models import UniVIP
from univip_mm.models.ema import ForeachCosineEMA
from univip_mm.models.step_graph import StepGraph
from univip_mm.registry import MODELS


class BareUniVIP(UniVIP):
    """Network passes of UniVIP, which stand for the limit of its speed.

    The loss is a sum of all features of the online branch with random
    factors. There is no augmentation, target update and optimizer.
    """

    views: Optional[list[Tensor]] = None
    factors: list[Tensor]
    still: Tensor

    def losses(self, views: list[Tensor], momentum: Tensor
               ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the sum, and the features of the target as log values."""
        online = self.forward_online(views[:2], views[2:])[:3]
        target = self.forward_target(views[:2], views[2:])
        loss = sum((x * y).sum() for x, y in zip(online, self.factors))
        return dict(loss=loss), dict(zip('abc', target))

    def train_step(self, data: dict, optim_wrapper: OptimWrapper) -> dict:
        """Run forward and backward on the first batch, augmented once."""
        if self.views is None:
            with torch.no_grad():
                self.views = self.data_preprocessor(data, True)['inputs']
            scene, batch_size = self.views[0], len(self.views[0])
            channels = self.fusion_neck.in_channels
            self.still = scene.new_zeros(())
            # Zeros as gradients would be faster.
            self.factors = [
                torch.randn(size, device=scene.device) for size in (
                    (batch_size, channels), (batch_size, channels),
                    (batch_size, len(self.views) - 2, channels))]
        self.zero_grad(set_to_none=True)
        with optim_wrapper.optim_context(self):
            losses, _ = self._losses_function()(self.views, self.still)
        losses['loss'].backward()
        return losses


class GraphBYOL(MODELS.get('BYOL')):
    """The host's BYOL, whose losses are a graph as those of UniVIP.

    The target is updated without host reads, which a graph cannot contain.
    """

    def __init__(self, *args, graph: str, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.online = nn.Sequential(self.backbone, self.neck)
        self.target_net = ForeachCosineEMA(self.online, momentum=0.01)
        self.graph = StepGraph(self, graph)

    def loss(self, inputs: list[Tensor], data_samples=None
             ) -> dict[str, Tensor]:
        """Compute the loss of a batch of two views."""
        momentum = self.target_net.next_momentum(self.online)
        return self.graph(inputs, torch.full(
            (), momentum, device=inputs[0].device))[0]

    def losses(self, views: list[Tensor], momentum: Tensor
               ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the loss as the host's ``loss`` does."""
        online = [self.online(x)[0] for x in views]
        self.target_net.move(self.online, momentum)
        with torch.no_grad():
            target = [self.target_net(x)[0] for x in views]
        loss = (self.head.loss(online[0], target[1])
                + self.head.loss(online[1], target[0]))
        return dict(loss=2 * loss), {}
