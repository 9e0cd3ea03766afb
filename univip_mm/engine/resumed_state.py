"""Checks that the weights and the optimizer of a checkpoint fit a run."""
import math
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

import torch

from ..utils.text import excerpt, printable

# Buffers that have the shape of their weight, in all optimizers of PyTorch.
_BUFFERS = 'momentum_buffer', 'exp_avg'
# Our classes whose state is equal to that of a class of the host.
_SAME_STATE = dict(ForeachLARS='LARS')
# Options that select a kernel. They depend on the version and the device.
_KERNELS = 'fused', 'foreach'


def count_fitting_weights(weights: Mapping,
                          model: torch.nn.Module) -> tuple[int, int]:
    """Return how many weights of the model get a value, and how many exist."""
    expected, found = _shapes(model.state_dict()), _shapes(weights)
    return sum(found.get(name) == shape for name, shape in expected.items()
               ), len(expected)


def check_model_fits(weights: Mapping, model: torch.nn.Module) -> None:
    """Raise ValueError unless the checkpoint has exactly the model's weights.

    MMEngine would only log the others, and train on from random weights.
    """
    expected, found = _shapes(model.state_dict()), _shapes(weights)
    wrong = [name for name in {**expected, **found}
             if expected.get(name) != found.get(name)]
    if not wrong:
        return
    words = ', '.join(
        f'{printable(name)[:200]} is {_words(found, name)} in the checkpoint '
        f'and {_words(expected, name)} in the model' for name in wrong[:2])
    more = f', and {len(wrong) - 2} others' if wrong[2:] else ''
    raise ValueError(f'its weights are of another model ({words}{more}): '
                     'resume with the config of the checkpoint')


def check_optimizer_fits(stored: Any, wrapper: Any, name: str,
                         stored_name: str) -> None:
    """Raise ValueError unless an optimizer can use the stored state.

    Args:
        stored (Any): ``optimizer`` of the checkpoint.
        wrapper (OptimWrapper): Optimizer of the present run.
        name (str): Class of the present optimizer.
        stored_name (str): Class of the optimizer of the checkpoint, '' if
            unknown.
    """
    groups = stored.get('param_groups') if isinstance(stored, dict) else None
    if not isinstance(groups, list) or not all(
            isinstance(x, dict) and isinstance(x.get('params'), list)
            for x in groups):
        raise ValueError('its optimizer is not that of PyTorch')
    present = wrapper.optimizer.param_groups
    # Numbers such as momentum and betas differ between optimizers; switches
    # such as `foreach` differ between versions of PyTorch too. A schedule adds
    # keys such as `initial_lr`.
    numbers = {key for key, value in present[0].items()
               if isinstance(value, (int, float, tuple))
               and type(value) is not bool and not key.startswith('initial_')}
    is_other = stored_name and _SAME_STATE.get(
        stored_name, stored_name) != _SAME_STATE.get(name, name)
    if is_other or groups and numbers - {*groups[0]}:
        raise ValueError(
            f'its optimizer is {printable(stored_name)[:80] or "another one"},'
            f' not {name}: resume with the same optim_wrapper.optimizer.type')
    sizes, wanted = ([len(x['params']) for x in part]
                     for part in (groups, present))
    if sizes != wanted:
        raise ValueError(
            f'its optimizer has {len(sizes)} groups of {sum(sizes)} weights, '
            f'but this run has {len(wanted)} groups of {sum(wanted)}: resume '
            'with the same optim_wrapper.paramwise_cfg')
    if isinstance(stored.get('base_param_settings'), dict) != (
            wrapper.base_param_settings is not None):
        raise ValueError('its optimizer has no base_param_settings')
    _check_numbers(groups, numbers)
    if 'loss_scaler' in stored and hasattr(wrapper, 'loss_scaler'):
        _check_numbers([stored['loss_scaler']],
                       {*wrapper.loss_scaler.state_dict()})
    _check_buffers(stored, present)


def _check_numbers(parts: list, keys: Collection[str]) -> None:
    for part in parts:
        for key in sorted(keys):
            value = part.get(key) if isinstance(part, dict) else part
            numbers = value if isinstance(value, (tuple, list)) else [value]
            if not all(isinstance(x, (int, float)) and math.isfinite(x)
                       for x in numbers):
                raise ValueError(
                    f'{key} of its optimizer is {excerpt(value)}, but must be '
                    'a number')


def _check_buffers(stored: dict, groups: list[dict]) -> None:
    # PyTorch assigns the buffers by the order of the weights.
    keys = chain(*(x['params'] for x in stored['param_groups']))
    state = stored.get('state')
    for key, weight in zip(keys, chain(*(x['params'] for x in groups))):
        buffers = state.get(key, {}) if isinstance(state, dict) else None
        if not isinstance(buffers, dict) or any(
                buffers.get(name) is not None
                and getattr(buffers[name], 'shape', None) != weight.shape
                for name in _BUFFERS):
            raise ValueError('the buffers of its optimizer are of other '
                             'weights')


def use_present_values(stored: dict, wrapper: Any,
                       scheduled: Collection[str] = ()) -> list[str]:
    """Replace the stored options of an optimizer by the present ones.

    The momentum buffers and the like stay. Without this, the learning rate,
    the weight decay and so on of the checkpoint would silently win.

    Args:
        stored (dict): ``optimizer`` of the checkpoint.
        wrapper (OptimWrapper): Optimizer of the present run.
        scheduled (Collection[str]): Options that stay, because the stored
            schedules stay too.

    Returns:
        list[str]: The options of the first group that differed.
    """
    groups = [*stored['param_groups']]
    if wrapper.base_param_settings is not None:
        groups.append(stored['base_param_settings'])
    kept = {'params', *scheduled, *(f'initial_{x}' for x in scheduled)}
    changes = []
    for i, (old, new) in enumerate(zip(groups, wrapper.param_groups)):
        for key in old.keys() - new.keys() - kept:
            if key.startswith('initial_'):  # of a schedule that is gone
                del old[key]
        for key in new.keys() - kept:
            words = [_format(x.get(key)) for x in (old, new)]
            if i == 0 and words[0] != words[1] and not (
                    key in _KERNELS or key.startswith('initial_')):
                changes.append(f'{key} {words[0]} -> {words[1]}')
            old[key] = new[key]
    return sorted(changes)


def _format(value: Any) -> str:
    return f'{value:g}' if isinstance(value, float) else printable(value)


def _words(shapes: dict, name: str) -> str:
    return str(shapes.get(name, 'missing'))


def _shapes(weights: Mapping) -> dict[str, Any]:
    """Return the shape or type of each weight, by the name in the model."""
    return {name[7:] if name.startswith('module.') else name:
            tuple(value.shape) if isinstance(value, torch.Tensor) else
            type(value).__name__ for name, value in weights.items()}
