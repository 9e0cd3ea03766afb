"""Names of networks, and the config that pre-trains each of them."""
import difflib
from collections.abc import Iterable
from copy import deepcopy
from typing import NamedTuple

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import nn

from ..models.pooling import last_output
from ..models.timm_backbone import import_timm
from ..registry import HOST, MODELS
from ..utils.text import printable


def _resnext(depth: int) -> dict:
    return dict(_delete_=True, type='ResNeXt', depth=depth, groups=32,
                width_per_group=4, norm_cfg=dict(type='SyncBN'))


def _vit(arch: str) -> dict:
    return dict(_delete_=True, type='VisionTransformer', arch=arch,
                img_size=224, patch_size=16)


# Changes of model.backbone in configs/univip_r50_coco.py.
_BACKBONES = {
    **{f'resnet{depth}': dict(depth=depth)
       for depth in (18, 34, 50, 101, 152)},
    'resnext50': _resnext(50),
    'resnext101': _resnext(101),
    'vit_small': _vit('deit-small'),
    'vit_base': _vit('base'),
    'swin_tiny': dict(_delete_=True, type='SwinTransformer', arch='tiny',
                      img_size=224, pad_small_map=True),
}
ARCHITECTURES = tuple(_BACKBONES)

# Arguments with which some networks of timm accept views of two sizes. The
# padding is for patches that do not divide the views.
_TIMM_OPTIONS: tuple[dict, ...] = (
    {}, dict(dynamic_img_size=True),
    dict(dynamic_img_size=True, dynamic_img_pad=True))

# MoCo v3 (arXiv 2104.02057, Sec. 4), as in the host's mocov3_vit-small
# config: lr 1.5e-4 per 256 images, for 512 images here, as in the recipe.
_ADAMW_LR = 3e-4
_ADAMW = dict(optim_wrapper=dict(optimizer=dict(
    _delete_=True, type='AdamW', lr=_ADAMW_LR, weight_decay=0.1)))
_ADAMW_WARMUP = 40
# UniVIP, Sec. 4.1, as in configs/univip_r50_coco.py.
_SGD_LR = 0.4
_SGD_WARMUP = 4


class Architecture(NamedTuple):
    """Config of a network.

    Attributes:
        options (dict): Values to merge into ``configs/univip_r50_coco.py``
            with ``Config.merge_from_dict``: backbone, projector and optimizer.
        learning_rate (float): Learning rate of 512 images per step.
        warmup_epochs (int): Epochs of the linear warm-up in the schedule.
        reason (str): Why this optimizer and its settings.
    """
    options: dict
    learning_rate: float
    warmup_epochs: int
    reason: str


def architecture_options(name: str, scene_size: int = 224,
                         instance_size: int = 96) -> Architecture:
    """Return the config of a network.

    The network is run once on views of both sizes, on the meta device, which
    computes shapes only.

    Args:
        name (str): A name of :data:`ARCHITECTURES`, or ``timm/NAME``.
        scene_size (int): Side of the scenes in pixels.
        instance_size (int): Side of the instances in pixels.

    Raises:
        ValueError: The name is unknown, timm is missing, or the network
            cannot be run on views of these sizes.
    """
    sizes = scene_size, instance_size
    if name.startswith('timm/'):
        backbone, network, features = _build_timm(name, sizes)
    elif name in _BACKBONES:
        backbone = _BACKBONES[name]
        network, features = _build(name, backbone, sizes)
    else:
        raise ValueError(_unknown(name))
    neck: dict = dict(in_channels=features.shape[1],
                      with_avg_pool=features.ndim == 4)
    if HOST == 'mmselfsup' and backbone.get('type') == 'VisionTransformer':
        neck['vit_backbone'] = True  # returns patches and the class token
    options: dict = dict(model=dict(backbone=backbone, neck=neck))
    learning_rate, warmup = _SGD_LR, _SGD_WARMUP
    if any(isinstance(x, nn.modules.batchnorm._BatchNorm)
           for x in network.modules()):
        reason = (f'{name} has batch norm: SGD as in the recipe of UniVIP, '
                  'which is for a ResNet')
    else:
        learning_rate, warmup = _ADAMW_LR, _ADAMW_WARMUP
        options.update(_ADAMW)
        reason = (f'{name} has no batch norm, like a ViT: AdamW, learning '
                  'rate 1.5e-4 per 256 images, weight decay 0.1 and 40 epochs '
                  'of warm-up, as in MoCo v3 (arXiv 2104.02057)')
    # A copy, because MMEngine removes `_delete_` from what it merges.
    return Architecture(deepcopy(options), learning_rate, warmup, reason)


def _build_timm(name: str, sizes: Iterable[int]
                ) -> tuple[dict, nn.Module, torch.Tensor]:
    """Return the config of a timm network, the network and its features."""
    model = name[len('timm/'):]
    if not import_timm().is_model(model):
        raise ValueError(_unknown(name))
    errors = []
    for options in _TIMM_OPTIONS:
        backbone = dict(_delete_=True, type='PooledTIMMBackbone',
                        model_name=model, norm_cfg=dict(type='SyncBN'),
                        **options)
        try:
            return (backbone, *_build(name, backbone, sizes))
        except ValueError as e:
            errors.append(e)
    raise errors[0]


def _build(name: str, backbone: dict, sizes: Iterable[int]
           ) -> tuple[nn.Module, torch.Tensor]:
    """Build a backbone, and run it on views of all sizes.

    Returns:
        tuple[nn.Module, Tensor]: The network, and its features of a batch.

    Raises:
        ValueError: It cannot be built or run, or gives no features (B, C) or
            (B, C, H, W), or features of several lengths.
    """
    cfg = {'type': 'ResNet', **backbone}
    cfg.pop('_delete_', None)
    features = {}
    try:
        network = _on_meta_device(cfg)
        for size in sizes:
            with torch.device('meta'), torch.no_grad():
                features[size] = last_output(
                    network(torch.empty(2, 3, size, size)))
    except Exception as e:  # the network may raise any type
        reason = ' '.join(printable(e).split())[:200]
        views = ' and '.join(map(str, sizes))
        raise ValueError(
            f"'{printable(name)}' cannot be run on views of {views} pixels "
            f'({type(e).__name__}: {reason}): choose other sizes of the '
            'views, or another network') from None
    shapes = [tuple(x.shape) for x in features.values()]
    if any(len(x) not in (2, 4) or x[:2] != shapes[0][:2] for x in shapes):
        raise ValueError(
            f"'{printable(name)}' gives features of the shapes {shapes}, but "
            'a projector needs (B, C) or (B, C, H, W) with the same C for '
            'all views: choose another network')
    return network, features[size]


def _on_meta_device(cfg: dict) -> nn.Module:
    """Build a backbone whose tensors have shapes only."""
    with DefaultScope.overwrite_default_scope('univip_mm'):
        try:
            with torch.device('meta'):  # takes neither time nor memory
                network = MODELS.build(cfg)
        except RuntimeError:  # the network reads a tensor while it is built
            network = MODELS.build(cfg)
    return revert_sync_batchnorm(network).to('meta')


def _unknown(name: str) -> str:
    """Return the error of an unknown name, with close matches."""
    known = list(ARCHITECTURES)
    try:
        known += [f'timm/{x}' for x in import_timm().list_models()]
    except ValueError:
        pass  # the list is complete without
    # 'resnet26d' and 'vit_small_patch16_224' are names of timm.
    close = [x for x in (f'timm/{name}', ) if x in known]
    close += difflib.get_close_matches(name, known, n=3)
    words = f'did you mean {" or ".join(dict.fromkeys(close))}? ' \
        if close else ''
    return (f"there is no network '{printable(name)}': {words}Choose one of "
            f'{", ".join(ARCHITECTURES)}, or timm/NAME with a name of '
            'timm.list_models()')
