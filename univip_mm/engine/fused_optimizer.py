"""PyTorch's fused optimizers, which can skip a step on the device.

A fused optimizer updates all weights with one kernel. Before the update, the
kernel reads ``optimizer.found_inf``. If the value is 1, the kernel changes
nothing. So the host does not need to know whether the step is skipped.
"""
from collections.abc import Iterator

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer


def use_fused(optimizer: Optimizer) -> None:
    """Switch an SGD, Adam or AdamW to its fused kernel, if one exists.

    Nothing changes if the config sets ``fused``, ``foreach``,
    ``differentiable`` or a ``dampening``. A checkpoint stores the choice of
    its run, which may have used another version or device. So call this
    function again after loading a checkpoint.
    """
    chosen = optimizer.defaults
    if (type(optimizer) not in (SGD, Adam, AdamW)
            or chosen.get('fused', False) is not None  # or an older PyTorch
            or chosen.get('foreach') is not None
            or chosen.get('differentiable') or chosen.get('dampening')):
        return
    is_fused = _has_fused_kernel(optimizer)
    for group in optimizer.param_groups:
        group['fused'] = is_fused or None
        if is_fused:
            group['foreach'] = None
    optimizer._step_supports_amp_scaling = is_fused
    if is_fused:
        _move_steps(optimizer)


def skips_on_device(optimizer: Optimizer) -> bool:
    """Return True if the optimizer honours its attribute ``found_inf``."""
    return getattr(optimizer, '_step_supports_amp_scaling', False)


def start_momentum(optimizer: Optimizer) -> None:
    """Create the missing momentum buffers of SGD, filled with zeros.

    In its first step, PyTorch's fused SGD allocates buffers without values.
    If the step is skipped, the buffers keep these undefined values. In a later
    step, fused SGD fails if a weight has its first gradient. So call this
    function before each step. Zeros give the same first step, because the
    dampening is 0.
    """
    if type(optimizer) is not SGD:
        return
    for group in optimizer.param_groups:
        if group.get('fused') and group['momentum'] and (
                not group['dampening']):
            for weight in group['params']:
                if weight.grad is not None:
                    state = optimizer.state[weight]
                    if state.get('momentum_buffer') is None:
                        state['momentum_buffer'] = torch.zeros_like(
                            weight.grad)


def _has_fused_kernel(optimizer: Optimizer) -> bool:
    """Return True if this PyTorch has a fused kernel for all weights."""
    if not hasattr(torch, '_fused_sgd_'):  # PyTorch before 2.3
        return False
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices
    devices = {'cuda', 'cpu'} & {*_get_fused_kernels_supported_devices()}
    return all(x.device.type in devices and x.is_floating_point()
               for x in _weights(optimizer))


def _move_steps(optimizer: Optimizer) -> None:
    """Move Adam's counters to the device of the weight."""
    for weight in _weights(optimizer):
        step = optimizer.state.get(weight, {}).get('step')
        if step is not None:
            optimizer.state[weight]['step'] = torch.as_tensor(
                step, dtype=torch.float32, device=weight.device)


def _weights(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    return (x for group in optimizer.param_groups for x in group['params'])
