"""Python that loads an exported file in its library, to be printed.

Each function returns a text for ``exec``. The tests run these texts.
"""
from collections.abc import Mapping
from typing import Any

from ..engine.config import type_name
from .export_names import Renamed
from .network import LOADING, resnet_config
from .source import BackboneSource, Normalization

# Arguments of the host's backbones that matter in a training only.
_TRAINING_ONLY = (*LOADING, 'norm_eval', 'frozen_stages', 'with_cp',
                  'zero_init_residual', 'drop_path_rate')


def of_mm(source: BackboneSource, path: str) -> str:
    """Return Python for a file of format 'mm'."""
    config = source.backbone or resnet_config(source.weights)
    if config is None:
        return ('import torch\n'
                f'weights = torch.load({path!r}, weights_only=True)'
                "['state_dict']")
    config = {key: config[key] for key in ('type', *config)
              if key not in _TRAINING_ONLY}
    if config.get('norm_cfg') in (dict(type='SyncBN'), dict(type='BN')):
        del config['norm_cfg']  # SyncBN has the weights of BN, the default
    if type_name(config) == 'PooledTIMMBackbone':
        # The host's class has the same names of weights. A pooled feature is
        # of no use to a detector or segmentor.
        config['type'] = 'TIMMBackbone'
    config['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    return ('from mmpretrain.registry import MODELS\n'
            f'model = MODELS.build({_text(config)}); model.init_weights()')


def of_torchvision(renamed: Renamed, path: str) -> str:
    """Return Python for a file of format 'torchvision'."""
    return ('import torch, torchvision\n'
            f'model = torchvision.models.{renamed.name}(); '
            'model.fc = torch.nn.Identity()\n'
            f'model.load_state_dict(torch.load({path!r}, weights_only=True))')


def of_timm(renamed: Renamed, path: str) -> str:
    """Return Python for a file of format 'timm'."""
    options = ''.join(f', {key}={value!r}'
                      for key, value in renamed.options.items())
    return ('import timm, torch\n'
            f'model = timm.create_model({renamed.name!r}, num_classes=0'
            f'{options})\n'
            f'model.load_state_dict(torch.load({path!r}, weights_only=True))')


def of_detectron2(renamed: Renamed, path: str,
                  normalization: Normalization) -> str:
    """Return Python for a file of format 'detectron2'."""
    settings = {'MODEL.WEIGHTS': path,
                **{f'MODEL.RESNETS.{key}': value
                   for key, value in renamed.options.items()},
                'INPUT.FORMAT': normalization.order,
                'MODEL.PIXEL_MEAN': list(normalization.mean),
                'MODEL.PIXEL_STD': list(normalization.std)}
    items = [x for pair in settings.items() for x in pair]
    return ('from detectron2.config import get_cfg; cfg = get_cfg()\n'
            f'cfg.merge_from_list({items!r})')


def of_safetensors(path: str) -> str:
    """Return Python for a file of format 'safetensors'."""
    return ('from safetensors.torch import load_file\n'
            f'weights = load_file({path!r})')


def of_onnx(path: str, outputs: tuple[str, ...]) -> str:
    """Return Python for an ONNX file; ``images`` are normalized."""
    names = ', '.join(outputs) if len(outputs) > 1 else f'{outputs[0]},'
    return ('import onnxruntime; session = onnxruntime.InferenceSession('
            f'{path!r})\n'
            f"# {names} = session.run(None, {{'images': images}})")


def _text(value: Any) -> str:
    """Return a config as Python, with dict(key=value)."""
    if isinstance(value, Mapping):
        items = (f'{key}={_text(x)}' for key, x in value.items())
        return f'dict({", ".join(items)})'
    return repr(value)
