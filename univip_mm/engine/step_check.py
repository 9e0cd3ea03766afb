"""Check of the losses and gradients of a step, on the device."""
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn


class StepCheck(NamedTuple):
    """Result of :func:`check_step`; all tensors are on the device.

    Attributes:
        values (Tensor): For the host, (5,): 1 if a loss of this rank is not
            finite, 1 if a loss of any rank is not, 1 if a gradient is not,
            ``projection_std``, and the loss scale (1 without a scaler).
        is_bad (Tensor): Bool scalar, True if the step must be skipped.
        weights (list[Tensor]): Parameters with a gradient.
        norms (Tensor): Largest absolute value of each gradient.
    """
    values: Tensor
    is_bad: Tensor
    weights: list[Tensor]
    norms: Tensor

    def bad_weights(self) -> list[Tensor]:
        """Return the parameters whose gradient was not finite."""
        is_finite = torch.isfinite(self.norms).tolist()
        return [x for x, y in zip(self.weights, is_finite) if not y]

    @torch.no_grad()
    def spoil_gradients(self) -> None:
        """Set one gradient to NaN in a bad step: the scaler then skips it.

        The gradients can be finite although the loss is not.
        """
        smallest = min((x.grad for x in self.weights), key=Tensor.numel)
        smallest.masked_fill_(self.is_bad, float('nan'))


@torch.no_grad()
def check_step(wrapper: Any, losses: Sequence[Tensor],
               projection_std: Optional[Tensor]) -> StepCheck:
    """Check that the losses and gradients of all ranks are finite.

    The host does not wait for the device.

    Args:
        wrapper (OptimWrapper): Optimizer whose weights have gradients.
        losses (Sequence[Tensor]): Scalar losses of this rank.
        projection_std (Tensor, optional): Scalar that is passed on in
            ``values``. Defaults to None, which gives 1.
    """
    terms = torch.stack([x.float() for x in losses])
    weights = [x for group in wrapper.optimizer.param_groups
               for x in group['params'] if x.grad is not None]
    # One kernel for all gradients, as in clip_grad_norm_.
    norms = torch.stack([x.float() for x in torch._foreach_norm(
        [x.grad for x in weights], float('inf'))])
    bad_loss = ~torch.isfinite(terms).all()
    of_all = torch.stack([bad_loss, ~torch.isfinite(norms).all()]).float()
    all_reduce(of_all, op='max')
    one = terms.new_ones(())
    std = one if projection_std is None else projection_std.detach().float()
    scaler = active_scaler(wrapper)
    scale = scaler._scale if scaler else one
    values = torch.cat([x.reshape(-1) for x in (
        bad_loss.float(), of_all, std, scale)])
    # While its scale is above 1, the loss scaler handles such gradients.
    is_bad = (of_all[0] > 0) | (of_all[1] > 0) & (scale <= 1)
    return StepCheck(values, is_bad.reshape(()), weights, norms)


def active_scaler(wrapper: Any) -> Optional[Any]:
    """Return the loss scaler of an optimizer wrapper, if it is switched on."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


class BufferCopy:
    """Copy of the floating-point buffers of a model, kept on the device.

    Integer buffers are counters, for example the steps of the EMA.
    """

    def __init__(self, model: nn.Module) -> None:
        groups = defaultdict(list)
        for x in model.buffers():
            if x.is_floating_point():
                groups[x.device, x.dtype].append(x)
        self._groups = [(group, _flat(group)) for group in groups.values()]

    @torch.no_grad()
    def restore(self, condition: Tensor) -> None:
        """Restore the values if a bool scalar on the device is True."""
        for buffers, before in self._groups:
            kept = torch.where(condition, before, _flat(buffers))
            parts = kept.split([x.numel() for x in buffers])
            torch._foreach_copy_(
                buffers, [x.view_as(y) for x, y in zip(parts, buffers)])


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])
