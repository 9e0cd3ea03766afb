"""The network of a checkpoint, built and loaded, that gives features."""
import copy
import inspect
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

import torch
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..engine.config import dicts_in, type_name
from ..models.pooling import last_output, pool
from ..registry import MODELS
from ..utils.text import excerpt, printable
from .export_names import resnet_depth
from .packages import import_package
from .source import BackboneSource

# Arguments that load weights of a backbone, which its checkpoint replaces.
LOADING = ('init_cfg', 'pretrained', 'checkpoint_path')
# Modules of the classes that the config of a checkpoint may name: a backbone,
# and the layers in it. Others can load files or download and run code.
_BACKBONES = ('mmpretrain.models.backbones.', 'mmselfsup.models.backbones.',
              'mmcls.models.backbones.', 'univip_mm.')
_LAYERS = (*_BACKBONES, 'mmpretrain.models.utils.', 'mmcls.models.utils.',
           'mmcv.cnn.', 'mmcv.ops.', 'torch.nn.',
           'mmengine.utils.dl_utils.')  # SyncBN
_CURE = 'give the config of the training with --config'


class FeatureNetwork(nn.Module):
    """Backbone that returns pooled features and its last output.

    A feature map is averaged over its positions. Of the tokens of a
    transformer, the class token is the feature, or without one the average.

    Args:
        backbone (nn.Module): Backbone of the host, or a wrapped one of timm.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, C) and the last output of the backbone.

        Args:
            images (Tensor): Normalized images (N, 3, H, W), float32.

        Returns:
            tuple[Tensor, Tensor]: Features (N, C); and a map (N, C, H', W')
            or (N, H', W', C), tokens (N, L, C), or the features again.
        """
        last = last_output(self.backbone(images))
        return self._pool(last), last

    def _pool(self, last: Tensor) -> Tensor:
        timm_model = getattr(self.backbone, 'timm_model', None)
        channels = getattr(timm_model, 'num_features', None)
        if last.ndim == 4 and last.shape[1] != channels == last.shape[-1]:
            return last.mean((1, 2))  # of timm, with the channels last
        if last.ndim == 3:
            network = self.backbone if timm_model is None else timm_model
            if getattr(network, 'cls_token', None) is not None:
                return last[:, 0]
            return last.mean(1)
        return pool(last)


def build_network(source: BackboneSource) -> FeatureNetwork:
    """Build the network of a checkpoint, load its weights, set eval mode.

    The config is that of ``source``. If it is unknown, a ResNet or ResNeXt is
    recognized by its weights. If the config is from the checkpoint itself,
    only backbones of the host and of this package are built, and nothing in
    them is loaded from elsewhere.

    Raises:
        ValueError: The network is unknown or not allowed, or its weights do
            not fit.
    """
    name = printable(source.path)
    config = source.backbone or resnet_config(source.weights)
    if config is None:
        raise ValueError(f"the network of '{name}' is unknown: {_CURE}")
    config = copy.deepcopy(config)
    if not source.is_trusted:
        _make_safe(config, name)
    for key in LOADING:
        config.pop(key, None)
    if type_name(config) in ('TIMMBackbone', 'PooledTIMMBackbone'):
        import_package('timm', 'the network')
    try:
        with DefaultScope.overwrite_default_scope('univip_mm'), _quiet():
            backbone = revert_sync_batchnorm(MODELS.build(config))
    except Exception as e:  # the network may raise any type
        raise ValueError(f"the network of '{name}' cannot be built "
                         f'({excerpt(str(e))}): {_CURE}') from None
    _load(backbone, source.weights, name)
    network = FeatureNetwork(backbone)
    network.eval()
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Log warnings only; the host's TIMMBackbone logs a line per block."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def resnet_config(weights: OrderedDict) -> Optional[dict]:
    """Return the config of a ResNet or ResNeXt with these weights, or None."""
    depth = resnet_depth(weights)
    if depth is None or 'conv1.weight' not in weights:
        return None
    stem = len(weights['conv1.weight'])
    config = dict(type='ResNet', depth=depth, stem_channels=stem,
                  base_channels=stem)
    if depth >= 50:
        middle, per_group = weights['layer1.0.conv2.weight'].shape[:2]
        if middle != per_group:
            config.update(type='ResNeXt', groups=middle // per_group,
                          width_per_group=per_group)
    if stem == 64:  # the default
        del config['stem_channels'], config['base_channels']
    return config


def _make_safe(config: dict, name: str) -> None:
    """Check the config of a checkpoint, which can be of an attacker.

    Removes the arguments that load weights, from all dicts in it, in place.

    Raises:
        ValueError: A class is not allowed, or a network would be downloaded.
    """
    for key, part in dicts_in(config, 'model.backbone'):
        for argument in (*LOADING, '_scope_'):  # a scope imports a package
            part.pop(argument, None)
        # The host's TIMMBackbone looks up norm_layer like a type.
        for argument in {'type', 'norm_layer'} & part.keys():
            is_backbone = part is config and argument == 'type'
            if not _is_allowed(part[argument],
                               _BACKBONES if is_backbone else _LAYERS):
                raise ValueError(
                    f"{key}.{argument} in the config of '{name}' is "
                    f'{excerpt(part[argument])}, which is no known '
                    f'{"backbone" if is_backbone else "layer"}: {_CURE}')
        if ':' in str(part.get('model_name')):
            raise ValueError(f"{key}.model_name of '{name}' would be "
                             f'downloaded: {_CURE}')


def _is_allowed(found: Any, modules: tuple[str, ...]) -> bool:
    """Return True if a type is a registered class of one of the modules.

    MMEngine would import and call any name with a dot, such as 'os.system',
    and the host registers functions of transformers that download code.
    """
    registry = MODELS
    while registry is not None and isinstance(found, str):
        scope, _, own_name = found.rpartition('.')
        if scope in ('', registry.scope) and own_name in registry.module_dict:
            built = registry.module_dict[own_name]
            return inspect.isclass(built) and built.__module__.startswith(
                modules)
        registry = registry.parent
    return False


def _load(backbone: nn.Module, weights: OrderedDict, name: str) -> None:
    """Load all weights; raise ValueError if names or shapes differ."""
    expected = backbone.state_dict()
    wrong = sorted(_misfits(expected, weights))
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(expected)} weights of '{name}' do not fit "
            f"the network of the config, for example '{printable(wrong[0])}': "
            f'{_CURE}')
    with torch.no_grad():
        backbone.load_state_dict(weights)


def _misfits(expected: dict, weights: dict) -> Iterable[str]:
    for key in expected.keys() | weights.keys():
        if key not in expected or key not in weights or (
                expected[key].shape != weights[key].shape):
            yield key
