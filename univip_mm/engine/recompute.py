"""Recompute the losses and gradients of a replay file."""
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn
from torch.overrides import TorchFunctionMode

from ..registry import MODELS
from .config import dicts_in
from .config_checks import find_registered, types_in

# A config in a file must not make a part load a file or a module.
LOADING_KEYS = ('_scope_', 'checkpoint', 'checkpoint_path', 'pretrained',
                'trust_remote_code')
MAX_NUMBER = 65536  # of channels
MAX_LAYERS = 1000


class _WithoutMemory(TorchFunctionMode):
    """Mode in which new weights get no memory.

    ``torch.device('meta')`` also applies to ``torch.linspace``, with which
    ResNets compute their drop rates.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.empty, torch.zeros, torch.ones, torch.full):
            kwargs = dict(kwargs or {}, device='meta')
        return func(*args, **kwargs or {})


def build_model(content: dict, device: str = 'cpu') -> nn.Module:
    """Build the model of a replay file, in the state before the step.

    The target branch is frozen: the file has the target weights that the batch
    was computed with. The losses run operation by operation, on any device.

    Raises:
        ValueError: The config names a type that is not registered, which
            MMEngine would import and call, or does not belong to the weights.
    """
    model_cfg = _model_config(content)
    with DefaultScope.overwrite_default_scope('univip_mm'):
        _check_sizes(model_cfg, content['model'])
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
    model.load_state_dict(content['model'])
    if hasattr(model, 'target_net'):
        model.steps_since_update = 0
        model.target_net.move = lambda *_: None
    return model.to(device).train()


def _model_config(content: dict) -> dict:
    """Return the config of the model, without initialization."""
    try:
        model_cfg = json.loads(content['config'], object_hook=lambda part: {
            k: v for k, v in part.items() if k != 'init_cfg'})['model']
        parts = list(dicts_in(model_cfg, 'model'))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError('the config in the replay file has no model: give a '
                         'file that NonFiniteHook has written') from None
    if isinstance(model_cfg, dict):
        model_cfg.pop('graph', None)
    for path, name in types_in(model_cfg, 'model'):
        if find_registered(MODELS, name) is None:
            raise ValueError(
                f"{path} in the replay file is '{name}', which is not a "
                'registered model: give --import MODULE with the module of '
                'yours that registers it')
    for path, part in parts:
        for key in LOADING_KEYS:
            if part.get(key):
                raise ValueError(
                    f'{path} in the replay file has a {key}, which would load '
                    'a file or a module: train without it')
    return model_cfg


def _check_sizes(model_cfg: dict, weights: dict) -> None:
    """Raise ValueError if the weights are not those of the config's model.

    The model is built without memory, so a config with absurd sizes is
    refused before memory is allocated for it.
    """
    for path, part in dicts_in(model_cfg, 'model'):
        for key, value in part.items():
            limit = (MAX_LAYERS if key in ('depth', 'num_layers')
                     else MAX_NUMBER)
            if isinstance(value, int) and value > limit:
                raise ValueError(f'{path}.{key} in the replay file is '
                                 f'{value}, above {limit}')
    try:
        with _WithoutMemory():
            expected = MODELS.build(model_cfg).state_dict()
    except (RuntimeError, NotImplementedError):
        return  # some networks compute with their new weights
    wrong = sorted(name for name in expected.keys() | weights.keys()
                   if name not in expected or name not in weights
                   or expected[name].shape != weights[name].shape)
    if wrong:
        raise ValueError(
            f'{len(wrong)} weights in the replay file do not fit its config, '
            f"the first is '{wrong[0]}'")


def preprocess_batch(model: nn.Module, batch: dict) -> dict:
    """Repeat the augmentation of one of the ``batches`` of a replay file.

    Returns:
        dict: ``inputs`` and ``data_samples``, as the network got them.

    Raises:
        ValueError: The batch was augmented on a GPU and there is none, or the
            file names a generator that the model does not have.
    """
    state = batch['random']
    torch.set_rng_state(state['cpu'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])
    for name, (device, value) in state['generators'].items():
        if device != 'cpu' and not torch.cuda.is_available():
            raise ValueError('the batch was augmented on a GPU and there is '
                             'none: replay it on a machine with a GPU')
        if name not in vars(model.data_preprocessor) or not isinstance(
                getattr(model.data_preprocessor, name),
                (torch.Generator, type(None))):
            raise ValueError(f"the replay file has a generator '{name}', "
                             'which the data_preprocessor does not have')
        generator = torch.Generator(device)
        generator.set_state(value)
        setattr(model.data_preprocessor, name, generator)
    data = batch['data']
    samples = data.get('data_samples')
    if samples:
        samples = [BaseDataElement(metainfo=x['metainfo']) for x in samples]
    return model.data_preprocessor({**data, 'data_samples': samples}, True)


def without_image(preprocessed: dict, index: int) -> dict:
    """Return a preprocessed batch without the image of an index."""
    views = preprocessed['inputs']
    keep = [i for i in range(len(views[0])) if i != index]
    samples = preprocessed['data_samples']
    return dict(
        inputs=[view[keep] for view in views],
        data_samples=[samples[i] for i in keep] if samples else samples)


def compute(model: nn.Module, preprocessed: dict,
            precision: str = 'float32') -> dict:
    """Compute the losses and gradients of a preprocessed batch.

    Args:
        model (nn.Module): Model of :func:`build_model`.
        preprocessed (dict): Batch of :func:`preprocess_batch`.
        precision (str): 'float32', or the type of autocast.

    Returns:
        dict: ``terms``, the value of each loss; ``gradients``, parameter name
        → True if its gradient is finite; ``first_layer``, the name of the
        first layer whose output is not finite, or None.
    """
    model.zero_grad()
    device = next(model.parameters()).device.type
    autocast = nullcontext() if precision == 'float32' else torch.autocast(
        device, getattr(torch, precision))
    with _non_finite_layers(model) as layers, autocast:
        out = model(**preprocessed, mode='loss')
    terms = {name: x.mean() for name, x in out.items() if 'loss' in name}
    sum(terms.values()).backward()
    return dict(
        terms={name: value.item() for name, value in terms.items()},
        gradients={name: bool(torch.isfinite(x.grad).all())
                   for name, x in model.named_parameters()
                   if x.grad is not None},
        first_layer=layers[0] if layers else None)


def is_finite(computed: dict) -> bool:
    """Return True if all losses and gradients are finite."""
    return bool(np.isfinite([*computed['terms'].values()]).all()
                and all(computed['gradients'].values()))


@contextmanager
def _non_finite_layers(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of layers with a non-finite output, in call order."""
    found = []

    def check(name, layer, inputs, output):
        tensors = output if isinstance(output, tuple) else (output, )
        if not all(torch.isfinite(x).all() for x in tensors
                   if isinstance(x, torch.Tensor)):
            found.append(name)

    handles = [layer.register_forward_hook(functools.partial(check, name))
               for name, layer in model.named_modules()
               if name and not list(layer.children())]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
