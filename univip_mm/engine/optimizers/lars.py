"""LARS without a wait for the device."""
from collections import defaultdict
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from ...registry import HOST, OPTIMIZERS

if HOST == 'mmpretrain':
    from mmpretrain.engine.optimizers import LARS
else:
    from mmselfsup.engine.optimizers import LARS

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Options(NamedTuple):
    """Device, type and options of the weights of one update."""
    device: torch.device
    dtype: torch.dtype
    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    eta: float
    nesterov: bool
    lars_exclude: bool


@OPTIMIZERS.register_module()
class ForeachLARS(LARS):
    """The host's ``LARS``, with one operation for many weights.

    The host reads two norms from the device for each weight, so the device
    waits for the CPU. This class reads nothing from the device. It updates
    together all weights that have the same options, device and type, also
    those of different groups: ``paramwise_cfg`` makes a group per weight.

    The arguments, the formula, and the keys of the groups and of the state are
    the host's, so each class resumes a checkpoint of the other class.

    Attributes:
        grad_scale (Tensor, optional): Scale of the loss, a scalar. If set,
            the gradients are divided by it in place before the step.
        found_inf (Tensor, optional): Scalar. If set and not 0, the step is
            skipped on the device: the weights and the momentum buffers do not
            change. Missing buffers are filled with 0. So ``dampening``
            applies to the step after a skipped first step, but never to a
            first step.

    ``torch.amp.GradScaler`` sets both attributes.
    """

    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure=None):
        """Update the weights; return the loss of the closure, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, 'found_inf', None)
        grad_scale = getattr(self, 'grad_scale', None)
        for options, weights in self._weights_by_options().items():
            gradients = [weight.grad for weight in weights]
            if grad_scale is not None:
                scale = grad_scale.to(options.device, non_blocking=True)
                torch._foreach_mul_(gradients, scale.reciprocal())
            keep = None if found_inf is None else found_inf.to(
                options.device, non_blocking=True) == 0
            buffers = [self.state[weight]['momentum_buffer']
                       for weight in weights] if options.momentum != 0 else []
            _update(weights, gradients, buffers, options, self.eps, keep)
        return loss

    def _weights_by_options(self) -> dict[_Options, list[Tensor]]:
        """Return the weights with a gradient; create missing buffers."""
        found = defaultdict(list)
        for group in self.param_groups:
            for weight in group['params']:
                if weight.grad is None:
                    continue
                dampening = group['dampening']
                if group['momentum'] != 0 and (
                        'momentum_buffer' not in self.state[weight]):
                    self.state[weight]['momentum_buffer'] = torch.zeros_like(
                        weight)
                    dampening = 0  # the first gradient is not dampened
                found[_Options(
                    weight.device, weight.dtype, group['lr'],
                    group['momentum'], dampening, group['weight_decay'],
                    group['eta'], group['nesterov'],
                    group.get('lars_exclude', False))].append(weight)
        return found


def _update(weights: list[Tensor], gradients: list[Tensor],
            buffers: list[Tensor], options: _Options, eps: float,
            keep: Optional[Tensor]) -> None:
    """Update weights and momentum buffers, unless ``keep`` is False."""
    momentum = options.momentum
    steps = torch._foreach_add(gradients, weights, alpha=options.weight_decay)
    if keep is not None:
        # 0 * NaN is NaN, and a list has no `torch.where`. Integers have no
        # NaN, and all bits of 0. are 0.
        integer = _INTEGERS[steps[0].element_size()]
        bits, factor = [x.view(integer) for x in steps], keep.to(integer)
        torch._foreach_mul_(bits, factor)
    if options.lars_exclude:
        torch._foreach_mul_(steps, options.lr)
    else:
        torch._foreach_mul_(
            steps, _rates(weights, gradients, options, eps, keep))
    if momentum != 0:
        decay = momentum if keep is None else torch.where(
            keep, momentum, torch.ones_like(factor, dtype=options.dtype))
        torch._foreach_mul_(buffers, decay)
        torch._foreach_add_(buffers, steps, alpha=1 - options.dampening)
        if options.nesterov:
            torch._foreach_add_(steps, buffers, alpha=momentum)
        elif keep is None:
            steps = buffers
        else:
            torch._foreach_copy_(steps, buffers)
        if keep is not None:
            torch._foreach_mul_(bits, factor)
    torch._foreach_sub_(weights, steps)


def _rates(weights: list[Tensor], gradients: list[Tensor], options: _Options,
           eps: float, keep: Optional[Tensor]) -> list[Tensor]:
    """Return the learning rate of each weight, a scalar on the device."""
    # In float64, as the host's Python numbers.
    weight, gradient = (torch.stack(torch._foreach_norm(x)).double()
                        for x in (weights, gradients))
    decayed = gradient + options.weight_decay * weight + eps
    is_adapted = (weight != 0) & (gradient != 0)
    if keep is not None:  # a rate that is not finite would make NaN of 0
        is_adapted &= keep
    rates = torch.where(is_adapted, options.eta * weight / decayed, 1.)
    dtype = torch.promote_types(options.dtype, torch.float32)
    return list((rates * options.lr).to(dtype).unbind())
