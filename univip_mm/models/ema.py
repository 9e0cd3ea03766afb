"""Exponential moving average with fused updates."""
import math
from typing import Optional

import torch
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from torch import nn

from ..registry import MODELS


@MODELS.register_module()
class ForeachCosineEMA(ExponentialMovingAverage):
    """MMPretrain's ``CosineEMA`` with one kernel for all parameters.

    MMPretrain reads the step count from the device for each parameter, and
    starts two kernels for each. This class keeps a copy of the count on the
    CPU and updates the list of parameters with one ``lerp``. The formula, the
    first update (a copy), and the checkpoint are the same as MMPretrain's.

    Args:
        model (nn.Module): The model to average.
        momentum (float): Share of the model in the first update after the
            copy: 1 minus BYOL's coefficient, or 1 minus the momentum of
            MMSelfSup's ``CosineEMA``. Defaults to 0.004.
        end_momentum (float): Share of the model at the end of the training.
            Defaults to 0.
        **kwargs: Arguments of MMEngine's ``ExponentialMovingAverage``.

    Attributes:
        max_updates (int, optional): Number of updates in the whole training.
            None, the default, means the number of iterations.
    """

    def __init__(self, model: nn.Module, momentum: float = 0.004,
                 end_momentum: float = 0., **kwargs) -> None:
        super().__init__(model, momentum=momentum, **kwargs)
        self.end_momentum = end_momentum
        self.max_updates: Optional[int] = None
        # Copy of the buffer `steps` on the CPU, None if unknown.
        self._num_updates: Optional[int] = None
        self.register_load_state_dict_post_hook(_forget_num_updates)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model by the current momentum."""
        if self._num_updates is None:
            self._num_updates = int(self.steps)
        named = (model.state_dict() if self.update_buffers else
                 dict(model.named_parameters()))
        average = list(self.avg_parameters.values())
        source = [named[name] for name in self.avg_parameters]
        if self._num_updates == 0:
            torch._foreach_copy_(average, source)
        elif self._num_updates % self.interval == 0:
            floating = [i for i, x in enumerate(average)
                        if x.is_floating_point()]
            torch._foreach_lerp_([average[i] for i in floating],
                                 [source[i] for i in floating],
                                 self._momentum_at(self._num_updates))
        if not self.update_buffers:
            buffers = list(self.module.buffers())
            if buffers:
                torch._foreach_copy_(buffers, list(model.buffers()))
        self.steps += 1
        self._num_updates += 1

    def _momentum_at(self, update: int) -> float:
        """Return the share of the model in an update, counted from 0."""
        last = self.max_updates
        if last is None:
            last = MessageHub.get_current_instance().get_info('max_iters')
        annealing = (math.cos(math.pi * update / last) + 1) / 2
        return (self.end_momentum
                - (self.end_momentum - self.momentum) * annealing)


def _forget_num_updates(module: ForeachCosineEMA, _) -> None:
    module._num_updates = None
