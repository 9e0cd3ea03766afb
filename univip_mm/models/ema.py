"""Exponential moving average without host reads."""
import math
from typing import Optional

import torch
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class ForeachCosineEMA(ExponentialMovingAverage):
    """MMPretrain's ``CosineEMA`` with a few kernels for all parameters.

    For each parameter, MMPretrain reads the step count from the device and
    starts two kernels. This class keeps a copy of the count on the CPU and
    updates lists of parameters. The first update (a copy) and the
    checkpoint are the same as MMPretrain's; the average is the same up to
    rounding.

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

    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model by the current momentum."""
        momentum = self.next_momentum(model)
        self.move(model, torch.full(
            (), momentum, device=self.steps.device))

    @torch.no_grad()
    def next_momentum(self, model: nn.Module) -> float:
        """Count an update, and return the share of the model in this update.

        The first update copies the model and returns 0. With ``interval`` N,
        only every N-th update returns another share than 0.
        """
        if self._num_updates is None:
            self._num_updates = int(self.steps)
        update = self._num_updates
        self._num_updates += 1
        self.steps += 1
        if update == 0:
            _copy(*self._averaged(model))
        if update == 0 or update % self.interval:
            return 0.
        return self._momentum_at(update)

    @torch.no_grad()
    def move(self, model: nn.Module, momentum: Tensor) -> None:
        """Set the average to average + momentum * (model - average).

        Buffers that are not averaged are copied, also with a momentum of 0.
        The method counts nothing, reads nothing on the host, and can be part
        of a compiled function.

        Args:
            model (nn.Module): Model of the same structure.
            momentum (Tensor): Share of the model, a scalar on its device.
        """
        average, source = self._averaged(model)
        floating = [i for i, x in enumerate(average) if x.is_floating_point()]
        _lerp([average[i] for i in floating], [source[i] for i in floating],
              momentum)
        if not self.update_buffers:
            _copy(list(self.module.buffers()), list(model.buffers()))

    def _averaged(self, model: nn.Module) -> tuple[list, list]:
        """Return the tensors of the average and of the model, in order."""
        if self.update_buffers:
            source = model.state_dict()
            return (list(self.avg_parameters.values()),
                    [source[name] for name in self.avg_parameters])
        return list(self.module.parameters()), list(model.parameters())

    def _momentum_at(self, update: int) -> float:
        """Return the share of the model in an update, counted from 0."""
        last = self.max_updates
        if last is None:
            last = MessageHub.get_current_instance().get_info('max_iters')
        annealing = (math.cos(math.pi * update / last) + 1) / 2
        return (self.end_momentum
                - (self.end_momentum - self.momentum) * annealing)


def _lerp(targets: list[Tensor], sources: list[Tensor],
          momentum: Tensor) -> None:
    """Move targets towards sources by the share ``momentum``, a scalar."""
    if not momentum.is_cuda:  # one pass over the memory
        torch._foreach_lerp_(
            targets, sources, [momentum.to(x.dtype) for x in targets])
        return
    # On a GPU, that call would start one kernel per tensor.
    way = torch._foreach_sub(sources, targets)
    torch._foreach_mul_(way, momentum)
    torch._foreach_add_(targets, way)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy tensors, with one call per dtype: a GPU copies each in one kernel.

    A list of several dtypes would start one kernel per tensor.
    """
    for dtype in {x.dtype: None for x in targets}:
        chosen = [i for i, x in enumerate(targets) if x.dtype == dtype]
        torch._foreach_copy_([targets[i] for i in chosen],
                             [sources[i] for i in chosen])


def _forget_num_updates(module: ForeachCosineEMA, _) -> None:
    module._num_updates = None
