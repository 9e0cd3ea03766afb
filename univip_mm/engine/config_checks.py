"""What can be told of a config before anything is built: it is held against
the registries, against the signatures of what it names, against the ranges of
its numbers, and its network is run once without any numbers in it."""
import difflib
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any, Optional

import mmengine.registry
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope, Registry
from torch.utils.data import DataLoader

from .. import registry as ours
from .config import parts_of_type

# What the Runner builds for a training.
SECTIONS = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler',
            'train_cfg', 'default_hooks', 'custom_hooks', 'log_processor',
            'visualizer')

# The type of `int | None`, which Python 3.9 does not have.
UNION = getattr(types, 'UnionType', typing.Union)

# Keys that the builders of MMEngine take out before they call the class.
TAKEN_OUT = {'type', '_scope_', 'priority', 'convert_to_iter_based',
             'init_cfg', 'paramwise_cfg', 'constructor', 'num_batch_per_epoch'}

# Of the numbers that are wrong in the same way wherever they stand: the
# smallest and the largest.
RANGES = dict(
    lr=(0, math.inf), weight_decay=(0, math.inf), momentum=(0, 1),
    base_momentum=(0, 1), eps=(0, math.inf), batch_size=(1, math.inf),
    num_workers=(0, math.inf), max_epochs=(1, math.inf),
    base_batch_size=(1, math.inf), accumulative_counts=(1, math.inf),
    num_instances=(1, math.inf), scene_size=(1, math.inf),
    instance_size=(1, math.inf), in_channels=(1, math.inf),
    hid_channels=(1, math.inf), out_channels=(1, math.inf))


def check_config(cfg: Config) -> None:
    """Whether every part of a training exists, takes what it is given, and
    has numbers in their range.

    Raises:
        ValueError: With the key and the cure, in one line.
    """
    _check_arguments(DataLoader, cfg.train_dataloader, 'train_dataloader')
    for section in SECTIONS:
        node = cfg.get(section)
        _check_node(node, section)
        _check_ranges(node, section)


def check_network(cfg: Config) -> None:
    """Whether the parts of UniVIP fit together, and take the views' sizes and
    the batch's. They are run on PyTorch's meta device, which computes shapes
    alone. Other models pass.

    Raises:
        ValueError: With the key and the cure, in one line.
    """
    if cfg.model.get('type') not in ('UniVIP', 'univip_mm.UniVIP'):
        return
    names = ('backbone', 'neck', 'head', 'fusion_neck')
    for name in names:
        if name not in cfg.model:
            raise ValueError(f'the config has no model.{name}: '
                             'configs/_base_/models/univip_r50.py shows one')
    crops = [*parts_of_type(cfg.train_dataloader, 'OverlapSceneCrop',
                            'train_dataloader')]
    if not crops:
        return
    path, crop = crops[0]
    batch_size = cfg.train_dataloader.get('batch_size', 1)
    several = cfg.get('launcher', 'none') != 'none'
    if several and any(parts_of_type(cfg.model, 'SyncBN', 'model')):
        batch_size = max(2, batch_size)  # which the ranks make up together
    with DefaultScope.overwrite_default_scope('univip_mm'):
        backbone, neck, head, fusion_neck = (
            revert_sync_batchnorm(ours.MODELS.build(cfg.model[name])).to(
                'meta')
            for name in names)
    with torch.device('meta'), torch.no_grad():
        for key, default in (('scene_size', 224), ('instance_size', 96)):
            size = crop.get(key, default)
            view = torch.empty(batch_size, 3, size, size)
            # From one part to the next: what fails, and what may be wrong.
            features = _run(
                backbone, view, 'model.backbone', f'{path}.{key} = {size} '
                f'and train_dataloader.batch_size = {batch_size}')
            features = _run(
                neck, features, 'model.neck', 'model.neck.in_channels and '
                f'train_dataloader.batch_size = {batch_size}')
            features = _run(
                head.predictor, list(features), 'model.head.predictor',
                'model.head.predictor.in_channels')
        instances = torch.stack(
            [features[0]] * crop.get('num_instances', 4), dim=1)
        fused = _run(fusion_neck, (instances, ), 'model.fusion_neck',
                     'model.fusion_neck.in_channels and .num_instances')
    if fused[0].shape[1] != features[0].shape[1]:
        raise ValueError(
            f'model.fusion_neck gives {fused[0].shape[1]} channels and '
            f'model.head.predictor {features[0].shape[1]}: give both the '
            'same out_channels')


def find_registered(registry: Registry, name: str) -> Optional[Callable]:
    """What is registered under a name here or in a parent, or None. Unlike
    ``Registry.get``, which imports whatever has a dot in its name."""
    scope, _, key = name.rpartition('.')
    node = registry
    while node is not None:
        node.import_from_location()
        if scope in ('', node.scope) and key in node.module_dict:
            return node.module_dict[key]
        node = node.parent
    return None


def types_in(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every name of a type below a node of a config, with its key."""
    for where, part in _dicts_in(node, path):
        if isinstance(part.get('type'), str):
            yield f'{where}.type', part['type']


def _dicts_in(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(node, dict):
        yield path, node
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from _dicts_in(child, f'{path}.{key}')


def _registries() -> list[Registry]:
    return [
        value for module in (ours, mmengine.registry)
        for value in vars(module).values() if isinstance(value, Registry)
    ]


def _check_node(node: Any, path: str) -> None:
    registries = _registries()
    for where, part in _dicts_in(node, path):
        name = part.get('type')
        if where.endswith('.clip_grad') or not isinstance(name, str):
            continue  # 'norm' or 'value'; or a class itself
        found = next(
            filter(None, (find_registered(x, name) for x in registries)), None)
        if found is not None:
            _check_arguments(found, part, where)
        elif '.' not in name:  # else a class to import
            names = {key for x in registries for node in _line(x)
                     for key in node.module_dict}
            raise ValueError(
                f"{where}.type is '{name}', which nothing is registered as: "
                + (_suggest(name, names) or 'check the spelling, and that '
                   'custom_imports has its module'))


def _line(registry: Registry) -> Iterator[Registry]:
    while registry is not None:
        yield registry
        registry = registry.parent


def _suggest(name: str, names: Collection) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ''


def _check_arguments(function: Callable, arguments: dict, path: str) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return  # of a builtin, which has none
    takes_all = any(
        x.kind is x.VAR_KEYWORD for x in parameters.values())
    for key, value in arguments.items():
        if key in TAKEN_OUT:
            continue
        if key not in parameters:
            if not takes_all:
                options = list(parameters)
                raise ValueError(
                    f'{path}.{key}: {function.__name__} has no such option: '
                    + (_suggest(key, options)
                       or f'its options are {", ".join(options)}'))
            continue
        hint = _hint_of(function, parameters[key])
        if not _fits(value, hint):
            raise ValueError(
                f'{path}.{key} is {value!r}, a {type(value).__name__}, but '
                f'{function.__name__} takes {_spell(hint)}')


def _hint_of(function: Callable, parameter: inspect.Parameter) -> Any:
    """The type of a parameter, or Any where it has none, or one that only a
    type checker sees."""
    if parameter.annotation is parameter.empty:
        return Any
    alone = types.SimpleNamespace(
        __annotations__=dict(hint=parameter.annotation))
    try:
        return typing.get_type_hints(
            alone, vars(sys.modules[function.__module__]))['hint']
    except (NameError, TypeError):
        return Any


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a plain type, as far as the hint is one: number
    or bool, or one of these or None. Of other hints nothing is held: they are
    often narrower than the code."""
    options = (typing.get_args(hint) if typing.get_origin(hint) in (
        typing.Union, UNION) else (hint, ))
    if not {int, float, bool} & set(options):
        return True
    if not set(options) <= {int, float, bool, type(None), str}:
        return not isinstance(value, str)
    if isinstance(value, bool):
        return bool in options
    if isinstance(value, int):
        return int in options or float in options
    return isinstance(value, tuple(options))


def _spell(hint: Any) -> str:
    return getattr(hint, '__name__', None) or str(hint).replace('typing.', '')


def _check_ranges(node: Any, path: str) -> None:
    for where, part in _dicts_in(node, path):
        for key, (smallest, largest) in RANGES.items():
            value = part.get(key)
            if isinstance(value, str):  # where the signature has no type
                raise ValueError(f'{where}.{key} is {value!r}, a str, but '
                                 'must be a number')
            if isinstance(value, (int, float)) and not (
                    smallest <= value <= largest):
                raise ValueError(
                    f'{where}.{key} is {value}, but must be '
                    + (f'at least {smallest}' if largest == math.inf else
                       f'between {smallest} and {largest}'))


def _run(part, inputs, name: str, keys: str):
    try:
        return part(inputs)
    except Exception as e:  # of any kind: it is another's code that fails
        reason = ' '.join(str(e).split())[:200]
        raise ValueError(f'{name} cannot be run ({type(e).__name__}: '
                         f'{reason}): check {keys}') from None
