"""Weights of a backbone with the names of another library.

The functions take and return state dicts of a backbone, without a prefix.
"""
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

import torch

from ..engine import weight_names
from ..engine.config import type_name
from .packages import import_package

# Depth by the number of blocks per stage. Bottleneck blocks (last item) have a
# third convolution.
_DEPTHS = {(2, 2, 2, 2, False): 18, (3, 4, 6, 3, False): 34,
           (3, 4, 6, 3, True): 50, (3, 4, 23, 3, True): 101,
           (3, 8, 36, 3, True): 152}
# Names of variants with the weight names of a ResNet, in both libraries.
_VARIANTS = ('resnet{}', 'resnext{}_32x4d', 'resnext{}_32x8d',
             'resnext{}_64x4d', 'wide_resnet{}_2')
# Arguments of the host's ResNet that change no name and no shape of a weight,
# but the output, with the value that the other libraries have.
_FIXED = dict(style='pytorch', strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
# timm's names by width and depth.
_VIT_SIZES = {(192, 12): 'tiny', (384, 12): 'small', (768, 12): 'base',
              (1024, 24): 'large'}
_SWIN_SIZES = {(96, 12): 'tiny', (96, 24): 'small', (128, 24): 'base',
               (192, 24): 'large'}
_TIMM_PREFIX = 'timm_model.'
# Arguments of the host's classes for networks of timm.
_NOT_OF_TIMM = ('type', 'model_name', 'features_only', 'pretrained',
                'checkpoint_path', 'in_channels', 'norm_cfg', 'init_cfg')
_CURE = 'use --format mm, safetensors or onnx'


class Renamed(NamedTuple):
    """Weights for another library.

    Attributes:
        name (str): Name of the network in this library.
        options (dict): Further arguments of the network.
        weights (OrderedDict): State dict with the library's names.
    """
    name: str
    options: dict[str, Any]
    weights: OrderedDict


def resnet_depth(backbone: Mapping) -> Optional[int]:
    """Return the depth of a ResNet state dict; None for other networks."""
    blocks = [len({name.split('.')[1] for name in backbone
                   if name.startswith(f'layer{stage}.')})
              for stage in range(1, 5)]
    return _DEPTHS.get((*blocks, 'layer1.0.conv3.weight' in backbone))


def weight_shapes(backbone: Mapping) -> dict[str, torch.Size]:
    """Return the shapes of the weights, without the classifier ``fc``."""
    return {name: value.shape for name, value in backbone.items()
            if not name.startswith('fc.')}


def to_torchvision(weights: OrderedDict, config: dict) -> Renamed:
    """Return a ResNet, ResNeXt or wide ResNet for torchvision.

    Args:
        weights (OrderedDict): State dict of the host's backbone.
        config (dict): Config of the backbone, or {} if it is unknown.

    Raises:
        ValueError: No network of torchvision has exactly these weights.
    """
    from torchvision import models
    check_plain_resnet(config, 'torchvision')
    weights = _without_timm_prefix(weights)
    for name in resnet_names(weights):
        if hasattr(models, name):
            with torch.device('meta'):
                network = getattr(models, name)()
            if weight_shapes(network.state_dict()) == weight_shapes(weights):
                return Renamed(name, {}, weights)
    kind = weight_names.names_of(weights)[1]
    if kind in ('ViT', 'Swin'):
        raise ValueError(f'a {kind} cannot be exported to torchvision: use '
                         '--format timm, mm, safetensors or onnx')
    raise ValueError('no ResNet of torchvision has the layers of this '
                     f'backbone: {_CURE}')


def to_timm(weights: OrderedDict, config: dict) -> Renamed:
    """Return a backbone for ``timm.create_model(name, num_classes=0)``.

    The arguments are as in :func:`to_torchvision`. Networks that were trained
    as TIMMBackbone, and the host's ResNets, ViTs and Swins are supported.

    Raises:
        ValueError: timm is missing, or no network of it has these weights.
    """
    timm = import_package('timm', 'this format')
    renamed = _without_timm_prefix(weights)
    if renamed is weights:
        check_plain_resnet(config, 'timm')
        _check_heads(config)
        renamed = weight_names.to_timm(weights)
    names = [config['model_name']] if config.get('model_name') else [
        *resnet_names(renamed), *_transformer_names(renamed)]
    options = _timm_options(config) or _image_size(renamed)
    for name in names:
        if timm.is_model(name.partition('.')[0]) and (
                _timm_shapes(timm, name, options) == {
                    key: value.shape for key, value in renamed.items()}):
            return Renamed(name, options, renamed)
    raise ValueError('no network of timm that univip_mm knows has the layers '
                     f'of this backbone: {_CURE}')


def to_detectron2(weights: OrderedDict, config: dict) -> Renamed:
    """Return a ResNet or ResNeXt with the names of detectron2.

    The names are those of detectron2's ``convert-torchvision-to-d2.py`` and
    of MoCo's ``convert-pretrain-to-detectron2.py``. The options are settings
    below ``MODEL.RESNETS``. The colors of ``stem.conv1`` stay as they are.

    Raises:
        ValueError: The backbone is no ResNet or ResNeXt of standard width.
    """
    options = {}
    if config.get('style') == 'caffe':
        config = dict(config, style='pytorch')
        options['STRIDE_IN_1X1'] = True
    try:
        name, _, weights = to_torchvision(weights, config)
    except ValueError:
        raise ValueError('detectron2 has only ResNets and ResNeXts of '
                         f'standard width, strides and dilations: {_CURE}'
                         ) from None
    if name.startswith('wide_'):
        raise ValueError(f'detectron2 has no {name}: {_CURE}')
    return Renamed(
        name, _detectron2_settings(name, options),
        OrderedDict((_detectron2_name(key), value)
                    for key, value in weights.items()))


def _detectron2_settings(name: str, options: dict) -> dict[str, Any]:
    depth, groups, width = re.fullmatch(
        r'\w+?t(\d+)(?:_(\d+)x(\d+)d)?', name).groups()
    settings = dict(dict(DEPTH=int(depth), STRIDE_IN_1X1=False), **options)
    if int(depth) < 50:
        settings['RES2_OUT_CHANNELS'] = 64
    if groups:
        settings.update(NUM_GROUPS=int(groups), WIDTH_PER_GROUP=int(width))
    return settings


def _detectron2_name(name: str) -> str:
    """Return detectron2's name for a name of a ResNet.

    'layer1.0.bn2.bias' becomes 'res2.0.conv2.norm.bias', and 'conv1.weight'
    'stem.conv1.weight'.
    """
    name = re.sub(r'^layer(\d)', lambda x: f'res{int(x[1]) + 1}', name)
    name = re.sub(r'\bbn(\d)\b', r'conv\1.norm', name)
    name = name.replace('downsample.0', 'shortcut')
    name = name.replace('downsample.1', 'shortcut.norm')
    return name if name.startswith('res') else f'stem.{name}'


def check_plain_resnet(config: dict, library: str) -> None:
    """Raise ValueError if a ResNet computes otherwise than another library's.

    Its weights have the same names and shapes, so that the library would load
    them and give wrong features.
    """
    if type_name(config) not in ('ResNet', 'ResNeXt'):
        return
    for key, plain in _FIXED.items():
        found = config.get(key, plain)
        if isinstance(found, list):
            found = tuple(found)
        if found != plain:
            raise ValueError(
                f'the backbone has {key} = {found!r}, but ResNets of '
                f'{library} have {plain!r}: {_CURE}')


def resnet_names(weights: Mapping) -> list[str]:
    """Return names of ResNets of this depth, plain and variants."""
    depth = resnet_depth(weights)
    return [] if depth is None else [x.format(depth) for x in _VARIANTS]


def _transformer_names(weights: Mapping) -> list[str]:
    """Return timm's names for a ViT or Swin with timm's weight names."""
    kind = weight_names.names_of(weights)[1]
    if kind not in ('ViT', 'Swin'):
        return []
    width, *_, patch = weights['patch_embed.proj.weight'].shape
    depth = sum(x.endswith('attn.qkv.weight') for x in weights)
    if kind == 'ViT':
        size = _VIT_SIZES.get((width, depth))
        return [f'vit_{size}_patch{patch}_224']
    return [f'swin_{_SWIN_SIZES.get((width, depth))}_patch4_window7_224']


def _timm_options(config: dict) -> dict[str, Any]:
    """Return the arguments of timm's network in a config of the host."""
    if 'model_name' not in config:
        return {}
    return {key: value for key, value in config.items()
            if key not in _NOT_OF_TIMM}


def _image_size(weights: Mapping) -> dict[str, int]:
    """Return ``img_size`` of a ViT with timm's names, if it is not 224."""
    if weight_names.names_of(weights)[1] != 'ViT':
        return {}
    if not {'cls_token', 'pos_embed'} <= weights.keys():
        return {}
    positions = weights['pos_embed'].shape[1] - 1
    size = round(positions**0.5) * weights['patch_embed.proj.weight'].shape[-1]
    return {} if size == 224 else dict(img_size=size)


def _timm_shapes(timm: Any, name: str, options: dict) -> Optional[dict]:
    """Return the shapes of the weights of timm's network, or None."""
    try:
        with torch.device('meta'):
            network = timm.create_model(name, num_classes=0, **options)
    except Exception:  # the network may raise any type on the meta device
        try:
            network = timm.create_model(name, num_classes=0, **options)
        except Exception:
            return None
    return {key: value.shape for key, value in network.state_dict().items()}


def _check_heads(config: dict) -> None:
    """Raise ValueError if a ViT has other heads than timm's of 64 channels.

    The number of heads changes the output, but no shape of a weight.
    """
    arch = config.get('arch')
    if (type_name(config) != 'VisionTransformer'
            or not isinstance(arch, dict)):
        return
    width, heads = arch.get('embed_dims'), arch.get('num_heads')
    if width != 64 * heads:
        raise ValueError(f"the ViT has {heads} heads of {width / heads:g} "
                         f"channels, but timm's have 64 channels: {_CURE}")


def _without_timm_prefix(weights: OrderedDict) -> OrderedDict:
    """Remove the prefix of the host's TIMMBackbone, if there is one."""
    if not all(name.startswith(_TIMM_PREFIX) for name in weights):
        return weights
    return OrderedDict((name[len(_TIMM_PREFIX):], value)
                       for name, value in weights.items())
