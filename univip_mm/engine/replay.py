"""A batch in a file, with all that it takes to compute its losses and
gradients again: the views as the loader gave them, the weights, the state of
the random numbers, the config. Tensors and plain types alone, so that it is
loaded without executing anything."""
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn

from ..registry import MODELS
from .checkpoint import load_checkpoint
from .config_checks import find_registered, types_in

FORMAT = 'univip_mm replay'
VERSION = 1


def random_state(preprocessor: nn.Module) -> dict:
    """The state of the random numbers that the next batch will draw from:
    PyTorch's, and those of the generators that the preprocessor keeps."""
    state = dict(cpu=torch.get_rng_state(), generators={
        name: _state_of(generator)
        for name, generator in _generators(preprocessor)
    })
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def save_replay(path: Union[str, os.PathLike], model: nn.Module,
                batches: list[tuple[Any, dict]], cfg: Config,
                **description) -> None:
    """Write a replay file. It appears whole or not at all.

    Args:
        path (str or PathLike): The file; its folder is made.
        model (nn.Module): With the weights before the step.
        batches (list): The batches that make up the step, more than one where
            gradients are accumulated: each as the loader gave it, and the
            :func:`random_state` before it.
        cfg (Config): That of the run, with ``model``.
        **description: Plain values: ``iteration``, ``rank``, ``precision``
            (float16, bfloat16 or float32), ``found`` (what was not finite).
    """
    preprocessor = getattr(model, 'data_preprocessor', nn.Module())
    for _, state in batches:
        for name, generator in _generators(preprocessor):
            # One that came to be with this batch was as its seed has it.
            if name not in state['generators']:
                fresh = torch.Generator(generator.device)
                state['generators'][name] = _state_of(
                    fresh.manual_seed(generator.initial_seed()))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        torch.save(
            dict(
                format=FORMAT,
                version=VERSION,
                config=json.dumps(cfg.to_dict(), default=str),
                model={
                    name: value.detach().cpu()
                    for name, value in model.state_dict().items()
                },
                batches=[
                    dict(data=_to_plain(data), random=state)
                    for data, state in batches
                ],
                **description), part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_replay(path: Union[str, os.PathLike]) -> dict:
    """A replay file's content; nothing in it is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a replay file, is cut short, is of a newer
            version, or holds what is not safe to load.
    """
    content = load_checkpoint(path)
    if content.get('format') != FORMAT:
        raise ValueError(f"'{path}' is not a replay file: give one that "
                         'NonFiniteHook has written')
    if content['version'] > VERSION:
        raise ValueError(
            f"'{path}' has version {content['version']} of the replay file, "
            f'and this univip_mm reads up to {VERSION}: update univip_mm')
    return content


def build_model(content: dict, device: str = 'cpu') -> nn.Module:
    """The model of a replay file, as it was before the step.

    Its moving average is left as it is: it had been updated before the batch
    was found to be bad.

    Raises:
        ValueError: The config names what is not registered. MMEngine would
            import it, and call whatever it is.
    """
    model_cfg = _without(json.loads(content['config'])['model'], 'init_cfg')
    for path, name in types_in(model_cfg, 'model'):
        if find_registered(MODELS, name) is None:
            raise ValueError(
                f"the replay file's {path} is '{name}', which is not a "
                'registered model: give --import MODULE, where a module of '
                'yours registers it')
    if '_scope_' in json.dumps(model_cfg):
        raise ValueError("the replay file's config has a _scope_, by which "
                         'MMEngine would import a module')
    with DefaultScope.overwrite_default_scope('univip_mm'):
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
    model.load_state_dict(content['model'])
    if hasattr(model, 'target_net'):
        model.target_net.update_parameters = lambda *_: None
    return model.to(device).train()


def prepare(model: nn.Module, batch: dict) -> dict:
    """The batch as it entered the network: ``inputs``, ``data_samples``.

    Raises:
        ValueError: It was drawn on a GPU and there is none.
    """
    state = batch['random']
    torch.set_rng_state(state['cpu'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])
    for name, (device, value) in state['generators'].items():
        if device != 'cpu' and not torch.cuda.is_available():
            raise ValueError('the augmentation was drawn on a GPU, and there '
                             'is none: replay the batch on a machine with one')
        generator = torch.Generator(device)
        generator.set_state(value)
        setattr(model.data_preprocessor, name, generator)
    return model.data_preprocessor(_from_plain(batch['data']), True)


def without_image(prepared: dict, index: int) -> dict:
    """A prepared batch without one of its images."""
    views = prepared['inputs']
    number = len(views[0])
    keep = [i for i in range(number) if i != index]
    samples = prepared['data_samples']
    return dict(
        inputs=[view[keep] for view in views],
        data_samples=[samples[i] for i in keep] if samples else samples)


def image_names(batch: dict) -> list[str]:
    """Paths of the batch's images, as far as its metainfo has them."""
    samples = batch['data'].get('data_samples') or []
    return [x['metainfo'].get('img_path', '?') for x in samples
            if isinstance(x, dict) and 'metainfo' in x]


def compute(model: nn.Module, prepared: dict,
            precision: str = 'float32') -> dict:
    """Losses and gradients of a prepared batch.

    Returns:
        dict: ``terms``, the value of each loss; ``gradients``, by name of
        the parameter whether its gradient is finite; ``first_layer``, the
        first whose output is not finite, or None.
    """
    model.zero_grad()
    device = next(model.parameters()).device.type
    cast = nullcontext() if precision == 'float32' else torch.autocast(
        device, getattr(torch, precision))
    with _first_non_finite(model) as found, cast:
        out = model(**prepared, mode='loss')
    terms = {name: value for name, value in out.items() if 'loss' in name}
    sum(value.mean() for value in terms.values()).backward()
    return dict(
        terms={name: value.mean().item() for name, value in terms.items()},
        gradients={
            name: bool(torch.isfinite(x.grad).all())
            for name, x in model.named_parameters() if x.grad is not None
        },
        first_layer=found[0] if found else None)


def is_finite(computed: dict) -> bool:
    """Whether all losses and gradients of :func:`compute` are."""
    return bool(
        np.isfinite(list(computed['terms'].values())).all()
        and all(computed['gradients'].values()))


@contextmanager
def _first_non_finite(model: nn.Module) -> Iterator[list]:
    """A list of the layers whose output is not finite, in the order in which
    they run."""
    found, handles = [], []

    def watch(name, layer):

        def hook(layer, inputs, output):
            tensors = output if isinstance(output, tuple) else (output, )
            if not all(
                    torch.isfinite(x).all() for x in tensors
                    if isinstance(x, torch.Tensor)):
                found.append(name)

        handles.append(layer.register_forward_hook(hook))

    for name, layer in model.named_modules():
        if name and not list(layer.children()):
            watch(name, layer)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _generators(module: nn.Module) -> list:
    return [(name, value) for name, value in vars(module).items()
            if isinstance(value, torch.Generator)]


def _state_of(generator: torch.Generator) -> tuple[str, torch.Tensor]:
    return str(generator.device), generator.get_state()


def _without(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        return {k: _without(v, key) for k, v in node.items() if k != key}
    if isinstance(node, list):
        return [_without(value, key) for value in node]
    return node


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


def _from_plain(data: dict) -> dict:
    samples: Optional[list] = data.get('data_samples')
    if samples:
        samples = [BaseDataElement(metainfo=x['metainfo']) for x in samples]
    return {**data, 'data_samples': samples}
