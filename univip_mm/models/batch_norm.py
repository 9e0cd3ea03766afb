"""Batch normalization that does not count its batches one by one.

PyTorch's layers add 1 to ``num_batches_tracked`` in each forward pass: one
kernel per layer and pass, for a number that is used only if ``momentum`` is
None. :func:`prepare_batch_norm` stops this, and :func:`count_batches` adds the
passes of all layers at once.
"""
import torch
from mmengine.model.utils import _BatchNormXd as _MMEngineBatchNorm
from torch import Tensor, nn
from torch.nn import functional as F

from .sync_batch_norm import find_group, sync_batch_norm


class _CountsLater(nn.modules.batchnorm._BatchNorm):
    """Base of layers whose batches :func:`count_batches` counts."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, C, ...) as PyTorch's layer does, without the count."""
        # Without a momentum, the statistics depend on the count.
        if not self.training or self.momentum is None:
            return super().forward(input)
        self._check_input_dim(input)
        tracks = self.track_running_stats
        return F.batch_norm(
            input, self.running_mean if tracks else None,
            self.running_var if tracks else None, self.weight, self.bias,
            True, self.momentum, self.eps)


# The names are PyTorch's, so that the layers print the same.
class BatchNorm1d(_CountsLater, nn.BatchNorm1d):  # noqa: D101
    pass


class BatchNorm2d(_CountsLater, nn.BatchNorm2d):  # noqa: D101
    pass


class SyncBatchNorm(_CountsLater, nn.SyncBatchNorm):
    """Layer that synchronizes its statistics without waiting for the device.

    All processes must have inputs.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, C, ...) with the statistics of all processes."""
        group = find_group(self.process_group)
        if group is None or not self.training or self.momentum is None:
            return super().forward(input)
        self._check_input_dim(input)
        tracks = self.track_running_stats
        return sync_batch_norm(
            input, self.weight, self.bias,
            self.running_mean if tracks else None,
            self.running_var if tracks else None, self.momentum, self.eps,
            group)


class _BatchNormXd(_CountsLater, _MMEngineBatchNorm):
    """Class of SyncBatchNorm layers that MMEngine reverts in one process."""


_REPLACEMENTS = {cls.__bases__[1]: cls for cls in (
    BatchNorm1d, BatchNorm2d, SyncBatchNorm, _BatchNormXd)}


def prepare_batch_norm(module: nn.Module) -> None:
    """Replace the classes of a module's batch norm layers, in place.

    The parameters, buffers, attributes and hooks of the layers stay. Each new
    class is a subclass of the old one. Layers of other classes, subclasses of
    PyTorch's layers included, stay as they are. A second call changes nothing.

    Outputs and running statistics are bit-equal to those of PyTorch's layers.
    ``num_batches_tracked`` stays too, until :func:`count_batches` is called.
    """
    for layer in module.modules():
        layer.__class__ = _REPLACEMENTS.get(type(layer), layer.__class__)


@torch.no_grad()
def count_batches(module: nn.Module, passes: int) -> None:
    """Add forward passes to the counters of all prepared layers.

    The counters of three kinds of layers do not change: layers in eval mode
    and layers without running statistics count nothing, and layers without
    momentum count in their forward pass. So call this function in the mode of
    the passes.

    Args:
        module (nn.Module): Module that :func:`prepare_batch_norm` has changed.
        passes (int): Number of forward passes of each layer.
    """
    layers = [x for x in module.modules() if isinstance(x, _CountsLater)
              and x.training and x.momentum is not None
              and x.track_running_stats]
    counters = [x.num_batches_tracked for x in layers
                if x.num_batches_tracked is not None]
    if counters:
        torch._foreach_add_(counters, passes)
