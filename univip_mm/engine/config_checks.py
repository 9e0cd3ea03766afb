"""Static config checks: registered types, arguments and value ranges.

Nothing is built. :mod:`.network_check` runs the network on the meta device.
"""
import difflib
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any, Optional

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from .. import registry as ours
from .config import dicts_in, parts_of_type

REGISTRIES = [x for module in (ours, mmengine.registry)
              for x in vars(module).values() if isinstance(x, Registry)]

# Sections that the Runner builds for a training.
SECTIONS = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler',
            'train_cfg', 'default_hooks', 'custom_hooks', 'log_processor',
            'visualizer')

# Keys that MMEngine's builders remove before they call the class.
BUILDER_KEYS = {
    'type', '_scope_', 'priority', 'convert_to_iter_based', 'init_cfg',
    'paramwise_cfg', 'constructor', 'num_batch_per_epoch'}

# Allowed (min, max) of common numeric keys.
RANGES = dict(
    lr=(0, math.inf), weight_decay=(0, math.inf), momentum=(0, 1),
    base_momentum=(0, 1), eps=(0, math.inf), batch_size=(1, math.inf),
    num_workers=(0, math.inf), max_epochs=(1, math.inf),
    base_batch_size=(1, math.inf), accumulative_counts=(1, math.inf),
    num_instances=(1, math.inf), scene_size=(1, math.inf),
    instance_size=(1, math.inf), in_channels=(1, math.inf),
    hid_channels=(1, math.inf), out_channels=(1, math.inf))

NUMBERS = {int, float, bool}
# Origins of `Optional[int]` and of `int | None`, which needs Python 3.10.
UNIONS = {typing.Union, getattr(types, 'UnionType', typing.Union)}


def check_config(cfg: Config) -> None:
    """Check the types, arguments and numbers of a training config.

    Raises:
        ValueError: One line with the key, the fault and the fix.
    """
    _check_arguments(DataLoader, cfg.train_dataloader, 'train_dataloader')
    for section in SECTIONS:
        for path, part in dicts_in(cfg.get(section), section):
            _check_type(part, path)
            _check_ranges(part, path)
    for path, part in dicts_in(cfg.get('param_scheduler'), 'param_scheduler'):
        _check_schedule(part, path)
    _check_collate(cfg.train_dataloader)
    _check_decode(cfg.train_dataloader)


def _check_decode(loader: dict) -> None:
    """Check that images that the device decodes are also cut there."""
    for path, part in dicts_in(loader.get('dataset'),
                               'train_dataloader.dataset'):
        steps = [x for x in part.get('pipeline') or [] if isinstance(x, dict)]
        if (any(x.get('decode') == 'device' for x in steps)
                and not any(x.get('cut') == 'device' for x in steps)):
            raise ValueError(
                f"{path}.pipeline: LoadEncodedImage has decode='device', but "
                "OverlapSceneCrop cuts the views in the worker: set "
                "cut='device' too")


def _check_collate(loader: dict) -> None:
    """Check that images whose views the device cuts can be collated."""
    if any(parts_of_type(loader.get('collate_fn'), 'collate_views', '')):
        return
    for path, crop in parts_of_type(loader, 'OverlapSceneCrop',
                                    'train_dataloader'):
        if crop.get('cut') == 'device':
            raise ValueError(
                f"{path}.cut is 'device', but train_dataloader.collate_fn "
                'cannot stack images of several sizes: set '
                "collate_fn=dict(type='univip_mm.collate_views')")


def find_registered(registry: Registry, name: str) -> Optional[Callable]:
    """Return the class of a name in a registry or its parents, or None.

    ``Registry.get`` would import any name that contains a dot.
    """
    scope, _, key = name.rpartition('.')
    for node in _with_parents(registry):
        node.import_from_location()
        if scope in ('', node.scope) and key in node.module_dict:
            return node.module_dict[key]
    return None


def types_in(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the key and the value of each ``type`` string in a config."""
    for key, part in dicts_in(node, path):
        if isinstance(part.get('type'), str):
            yield f'{key}.type', part['type']


def _with_parents(registry: Optional[Registry]) -> Iterator[Registry]:
    while registry is not None:
        yield registry
        registry = registry.parent


def _check_type(part: dict, path: str) -> None:
    name = part.get('type')
    # The type of clip_grad is 'norm' or 'value'. A type that is not a string
    # is the class itself.
    if path.endswith('.clip_grad') or not isinstance(name, str):
        return
    found = next(
        filter(None, (find_registered(x, name) for x in REGISTRIES)), None)
    if found:
        _check_arguments(found, part, path)
    elif '.' not in name:  # MMEngine imports a name with a dot
        names = {x for registry in REGISTRIES
                 for node in _with_parents(registry) for x in node.module_dict}
        raise ValueError(
            f"{path}.type is '{name}', but nothing is registered under this "
            'name: ' + (_suggest(name, names) or 'check the spelling, and that'
                        ' custom_imports has its module'))


def _suggest(name: str, names: Collection) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ''


def _check_arguments(function: Callable, arguments: dict, path: str) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return  # a builtin without a signature
    has_kwargs = any(x.kind is x.VAR_KEYWORD for x in parameters.values())
    for key, value in arguments.items():
        if key in BUILDER_KEYS:
            continue
        if key in parameters:
            hint = _type_hint(function, parameters[key])
            if not _is_valid(value, hint):
                spelt = getattr(hint, '__name__', None) or str(hint).replace(
                    'typing.', '')
                raise ValueError(
                    f'{path}.{key} is {value!r}, a {type(value).__name__}, '
                    f'but {function.__name__} takes {spelt}')
        elif not has_kwargs:
            raise ValueError(
                f'{path}.{key}: {function.__name__} has no such option: '
                + (_suggest(key, parameters)
                   or f'its options are {", ".join(parameters)}'))


def _type_hint(function: Callable, parameter: inspect.Parameter) -> Any:
    """Return the type of a parameter, or Any if it cannot be resolved."""
    if parameter.annotation is parameter.empty:
        return Any
    # One by one: get_type_hints fails if any hint is unknown.
    owner = types.SimpleNamespace(__annotations__={'': parameter.annotation})
    try:
        return typing.get_type_hints(
            owner, vars(sys.modules[function.__module__]))['']
    except (NameError, TypeError):
        return Any


def _is_valid(value: Any, hint: Any) -> bool:
    """Return False if the hint asks for a number and the value is not one.

    Other hints are not checked: they are often narrower than the code.
    """
    options = set(typing.get_args(hint)
                  if typing.get_origin(hint) in UNIONS else (hint, ))
    if not options & NUMBERS:
        return True
    if not options <= NUMBERS | {type(None), str}:  # as Union[int, tuple]
        return not isinstance(value, str)
    if isinstance(value, bool):
        return bool in options
    if isinstance(value, int):
        return bool(options & {int, float})
    return isinstance(value, tuple(options))


def _check_ranges(part: dict, path: str) -> None:
    for key, (smallest, largest) in RANGES.items():
        value = part.get(key)
        if isinstance(value, str):  # the signature had no type hint
            raise ValueError(f'{path}.{key} is {value!r}, a str, but must be '
                             'a number')
        if (isinstance(value, (int, float))
                and not smallest <= value <= largest):
            rule = (f'at least {smallest}' if largest == math.inf else
                    f'between {smallest} and {largest}')
            raise ValueError(f'{path}.{key} is {value}, but must be {rule}')


def _check_schedule(part: dict, path: str) -> None:
    begin, end = part.get('begin', 0), part.get('end', math.inf)
    for key, value in (('begin', begin), ('end', end)):
        if not isinstance(value, (int, float)):
            raise ValueError(f'{path}.{key} is {value!r}, but must be a '
                             'number of epochs or iterations')
    if begin >= end:
        raise ValueError(
            f'{path}.end is {end}, but the schedule begins at {begin}: for a '
            'shorter training, shorten the warm-up too')
