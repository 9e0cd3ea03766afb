"""Batch normalization with the statistics of all processes.

PyTorch's SyncBatchNorm selects rows by three masks per layer, and the CPU
waits for each mask. PyTorch's layer cannot be traced, and does not run on a
CPU. The functions of this module read nothing from the device. Like PyTorch's
layer, they need one collective operation in the forward pass and one in the
backward pass.
"""
from typing import Any, Optional

import torch
import torch.distributed as dist
from torch import Tensor

try:
    from torch.compiler import is_compiling
    from torch.distributed import _functional_collectives as functional
except ImportError:  # older PyTorch, which does not trace collectives

    def is_compiling() -> bool:
        """Return False."""
        return False


def find_group(group: Optional[Any]) -> Optional[Any]:
    """Return the process group of a layer, None if it has one process.

    ``group`` None means all processes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None
    group = dist.group.WORLD if group is None else group
    return group if dist.get_world_size(group) > 1 else None


def sync_batch_norm(x: Tensor, weight: Optional[Tensor],
                    bias: Optional[Tensor], running_mean: Optional[Tensor],
                    running_var: Optional[Tensor], momentum: float, eps: float,
                    group: Any) -> Tensor:
    """Normalize inputs with the statistics of all processes of a group.

    The gradients of weight and bias are those of this process, as PyTorch's:
    ``DistributedDataParallel`` averages them.

    Args:
        x (Tensor): Inputs (B, C, ...) of this process. B must not be 0.
        weight (Tensor, optional): Scale (C,).
        bias (Tensor, optional): Shift (C,).
        running_mean (Tensor, optional): Mean (C,), updated in place.
        running_var (Tensor, optional): Variance (C,), updated in place.
        momentum (float): Share of the batch in the update.
        eps (float): Added to the variance.
        group (ProcessGroup): Processes with the same layer, at least two.
    """
    # PyTorch's kernels for GPUs are fused. A compiler fuses the formulas.
    is_fused = x.is_cuda and not is_compiling()
    x = _dense(x) if is_fused else x
    with torch.no_grad():
        statistics = _fused_statistics if is_fused else _statistics
        mean, invstd, counts = statistics(x, running_mean, running_var,
                                          momentum, eps, group)
    return _Normalize.apply(x, weight, bias, mean, invstd, counts, eps, group,
                            is_fused)


def _statistics(x: Tensor, running_mean: Optional[Tensor],
                running_var: Optional[Tensor], momentum: float, eps: float,
                group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Update the running statistics; return mean, 1 / std and the counts."""
    var, mean = torch.var_mean(_precise(x), _all_but_channels(x), correction=0)
    means, variances, counts = _gather(mean, var, x, group)
    # Sums of squares would lose the digits of a large mean.
    total = counts.sum()
    shares = counts / total
    mean = (shares * means).sum(0)
    var = (shares * (variances + (means - mean).square())).sum(0)
    if running_mean is not None and running_var is not None:
        unbiased = var * (total / (total - 1))
        for running, now in ((running_mean, mean), (running_var, unbiased)):
            running.lerp_(_cast(now, running.dtype), momentum)
    return mean, (var + eps).rsqrt(), counts


def _fused_statistics(x: Tensor, running_mean: Optional[Tensor],
                      running_var: Optional[Tensor], momentum: float,
                      eps: float, group: Any
                      ) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``_statistics`` returns, with PyTorch's kernels."""
    means, invstds, counts = _gather(*torch.batch_norm_stats(x, eps), x, group)
    dtype = means.dtype if running_mean is None else running_mean.dtype
    mean, invstd = torch.batch_norm_gather_stats_with_counts(
        x, means, invstds, running_mean, running_var, momentum, eps,
        counts.flatten().to(dtype))
    return mean, invstd, counts


def _gather(a: Tensor, b: Tensor, x: Tensor, group: Any
            ) -> tuple[Tensor, Tensor, Tensor]:
    """Return two vectors (C,) and the count of values of each process.

    The shapes are (P, C), (P, C) and (P, 1) for P processes.
    """
    own = torch.cat([a, b, a.new_full((1, ), x.numel() // x.shape[1])])
    size = dist.get_world_size(group)
    if is_compiling():
        rows = functional.all_gather_tensor(own, 0, group)
    else:
        rows = own.new_empty(size * len(own))
        if dist.get_backend(group) == 'gloo':  # PyTorch 2.1 has no other
            dist.all_gather(list(rows.chunk(size)), own, group)
        else:
            dist.all_gather_into_tensor(rows, own, group)
    a, b, counts = rows.view(size, -1).split([len(a), len(b), 1], dim=1)
    return a, b, counts


class _Normalize(torch.autograd.Function):
    """Normalization whose gradient includes that of the statistics."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, invstd, counts, eps, group,
                is_fused):
        """Return (x - mean) * invstd * weight + bias in the type of x."""
        ctx.save_for_backward(x, weight, mean, invstd, counts)
        ctx.group, ctx.is_fused = group, is_fused
        if is_fused:
            return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)
        out = _centred(x, mean) * _like(x, invstd)
        if weight is not None:
            out = out * _like(x, weight)
        if bias is not None:
            out = out + _like(x, bias)
        return _cast(out, x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of x, weight and bias."""
        x, weight, mean, invstd, counts = ctx.saved_tensors
        dims, has_weight = _all_but_channels(x), weight is not None
        grad_x = grad_weight = grad_bias = None
        if ctx.is_fused:
            gradient = _dense(gradient)
            sum_dy, sum_dy_xmu, grad_weight, grad_bias = (
                torch.batch_norm_backward_reduce(
                    gradient, x, mean, invstd, weight, True, has_weight,
                    has_weight))
        else:
            dy, xmu = _precise(gradient), _centred(x, mean)
            sum_dy, sum_dy_xmu = dy.sum(dims), (dy * xmu).sum(dims)
            if has_weight:
                grad_weight = _cast(sum_dy_xmu * invstd, weight.dtype)
                grad_bias = _cast(sum_dy, weight.dtype)
        if ctx.needs_input_grad[0]:
            sums = _sum(torch.cat([sum_dy, sum_dy_xmu]), ctx.group)
            sum_dy, sum_dy_xmu = sums.split(len(mean))
            scale = _cast(weight, mean.dtype) if has_weight else None
            if ctx.is_fused:
                grad_x = torch.batch_norm_backward_elemt(
                    gradient, x, mean, invstd, scale, sum_dy, sum_dy_xmu,
                    counts.to(torch.int32))
            else:
                total = counts.sum()
                slope = sum_dy_xmu / total * invstd.square()
                grad_x = dy - _like(x, sum_dy / total) - xmu * _like(x, slope)
                grad_x = grad_x * _like(
                    x, invstd * scale if has_weight else invstd)
                grad_x = _cast(grad_x, x.dtype)
        return grad_x, grad_weight, grad_bias, *[None] * 6


def _sum(values: Tensor, group: Any) -> Tensor:
    """Return the sum over the processes; the argument may change."""
    if is_compiling():
        return functional.all_reduce(values, 'sum', group)
    dist.all_reduce(values, group=group)
    return values


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    # In a traced autograd function, `to` without effect loses the gradient
    # (PyTorch 2.11).
    return x if x.dtype == dtype else x.to(dtype)


def _precise(x: Tensor) -> Tensor:
    return _cast(x, torch.promote_types(x.dtype, torch.float32))


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    return _precise(x) - _like(x, mean)


def _like(x: Tensor, values: Tensor) -> Tensor:
    """Return values (C,) in a shape that broadcasts to x (B, C, ...)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _dense(x: Tensor) -> Tensor:
    """Return x in one of the two layouts that PyTorch's kernels read."""
    is_last = x.ndim == 4 and x.is_contiguous(
        memory_format=torch.channels_last)
    return x if is_last else x.contiguous()
