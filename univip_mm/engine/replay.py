"""Replay file: a batch and all data to recompute its losses.

The file contains the views as the loader gave them, the weights, the random
state and the config, as tensors and plain types only. So it can be loaded
without executing code. :mod:`.recompute` recomputes the losses.
"""
import json
import os
import re
from typing import Any, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn

from ..io.atomic import atomic_write
from ..utils.text import printable
from . import safe_load
from .checkpoint import load_checkpoint

FORMAT = 'univip_mm replay'
VERSION = 1
PRECISIONS = ('float32', 'bfloat16', 'float16')
FIELDS = dict(config=str, model=dict, batches=list, iteration=int, rank=int,
              precision=str, found=str)


def random_state(preprocessor: nn.Module) -> dict:
    """Return the random state for the augmentation of the next batch.

    Returns:
        dict: State of PyTorch's CPU generator and, if CUDA is in use, of its
        GPU generator; and of all generators that the preprocessor owns.
    """
    state = dict(cpu=torch.get_rng_state(), generators={
        name: _state_of(x) for name, x in _generators(preprocessor)})
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def save_replay(path: Union[str, os.PathLike], model: nn.Module,
                batches: list[tuple[Any, dict]], cfg: Config,
                **description) -> None:
    """Write a replay file atomically.

    Args:
        path (str or PathLike): File to write. Its folder is created.
        model (nn.Module): Model with the weights before the step.
        batches (list): Batches of the step, more than one if gradients are
            accumulated: the batch as the loader gave it, and the
            :func:`random_state` before it.
        cfg (Config): Config of the run.
        **description: ``iteration``, ``rank``, ``precision`` (float16,
            bfloat16 or float32), ``found`` (text: what was not finite).

    Raises:
        OSError: The file cannot be written.
    """
    preprocessor = getattr(model, 'data_preprocessor', nn.Module())
    for _, state in batches:
        for name, generator in _generators(preprocessor):
            # This batch created the generator: record the state of its seed.
            if name not in state['generators']:
                fresh = torch.Generator(generator.device)
                state['generators'][name] = _state_of(
                    fresh.manual_seed(generator.initial_seed()))
    content = dict(
        format=FORMAT, version=VERSION,
        config=json.dumps(cfg.to_dict(), default=str),
        model={name: x.cpu() for name, x in model.state_dict().items()},
        batches=[dict(data=_to_plain(data), random=state)
                 for data, state in batches],
        **description)
    with atomic_write(path) as file:
        torch.save(content, file)


def load_replay(path: Union[str, os.PathLike]) -> dict:
    """Load a replay file without executing code in it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a replay file, is truncated, has a newer
            version, is not safe to load, or has a wrong field.
    """
    content = load_checkpoint(path)
    name, version = printable(path), content.get('version')
    if content.get('format') != FORMAT or type(version) is not int:
        raise ValueError(f"'{name}' is not a replay file: give a file that "
                         'NonFiniteHook has written')
    if version > VERSION:
        raise ValueError(
            f"'{name}' has version {version} of the replay file, but this "
            f'univip_mm reads up to {VERSION}: update univip_mm')
    wrong = _wrong_field(content)
    if wrong:
        raise ValueError(f"'{name}' has a wrong {wrong}: give a file that "
                         'NonFiniteHook has written')
    return content


def _wrong_field(content: dict) -> str:
    """Return the name of a field with a wrong type or value, or ''."""
    for field, kind in FIELDS.items():
        if type(content.get(field)) is not kind:
            return field
    if content['precision'] not in PRECISIONS:
        return 'precision'
    if not all(type(name) is str and _has_data(x)
               for name, x in content['model'].items()):
        return 'model'
    for batch in content['batches']:
        if type(batch) is not dict or set(batch) != {'data', 'random'}:
            return 'batch'
        if type(batch['data']) is not dict or not _is_plain(batch['data']):
            return 'data of a batch'
        if not _are_samples(batch['data'].get('data_samples')):
            return 'data_samples'
        if not _is_random_state(batch['random']):
            return 'random state'
    return ''


def _has_data(value: Any) -> bool:
    return safe_load.has_data(value) and value.device.type == 'cpu'


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(k) is str and _is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return _has_data(value) or value is None or type(value) in (
        bool, int, float, str)


def _are_samples(samples: Any) -> bool:
    return samples is None or type(samples) is list and all(
        type(x) is dict and set(x) == {'metainfo'}
        and type(x['metainfo']) is dict
        # These become attributes.
        and all(name.isidentifier() and name[0] != '_'
                and not hasattr(BaseDataElement, name)
                for name in x['metainfo']) for x in samples)


def _is_random_state(state: Any) -> bool:
    if type(state) is not dict or type(state.get('generators')) is not dict:
        return False
    tensors = [state.get('cpu'), state.get('cuda', state.get('cpu'))]
    for generator in state['generators'].values():
        if type(generator) is not tuple or len(generator) != 2 or not (
                re.fullmatch(r'cpu|cuda(:\d{1,4})?', str(generator[0]))):
            return False
        tensors.append(generator[1])
    return all(_has_data(x) and x.dtype == torch.uint8 for x in tensors)


def image_names(batch: dict) -> list[str]:
    """Return the image paths of a batch in a replay file, if it has any."""
    paths = [x['metainfo'].get('img_path')
             for x in batch['data'].get('data_samples') or []]
    return [x if isinstance(x, str) else '?' for x in paths]


def _generators(module: nn.Module) -> list[tuple[str, torch.Generator]]:
    return [(name, value) for name, value in vars(module).items()
            if isinstance(value, torch.Generator)]


def _state_of(generator: torch.Generator) -> tuple[str, torch.Tensor]:
    return str(generator.device), generator.get_state()


def _to_plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, BaseDataElement):
        return dict(metainfo=_to_plain(dict(value.metainfo_items())))
    if isinstance(value, dict):
        return {str(k): _to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(x) for x in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
