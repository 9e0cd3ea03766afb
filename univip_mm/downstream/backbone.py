"""Backbone of a checkpoint: find it, and check that it fits a config."""
import os
from collections import OrderedDict
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..engine.checkpoint import load_checkpoint, weights_of
from ..engine.config import parts_of_type
from ..io.atomic import atomic_write
from .export import save_backbone
from .export_names import resnet_depth, weight_shapes
from .export_origin import origin_of
from .extract import check_tensors, extract_backbone


def find_backbone(checkpoint: str, work_dir: str) -> tuple[str, OrderedDict]:
    """Return the path and the state dict of a checkpoint's backbone.

    The backbone of a UniVIP or BYOL checkpoint is extracted to
    ``WORK_DIR/backbone.pth``, unless an earlier run has done so. An extracted
    backbone is used directly.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The file is another kind of checkpoint.
    """
    content = load_checkpoint(checkpoint)
    try:
        weights = weights_of(content)
        # Only an extracted backbone has the first weight of a ResNet without
        # the prefix `backbone.`.
        if 'conv1.weight' in weights:
            check_tensors(weights)
            return checkpoint, OrderedDict(weights)
        backbone = extract_backbone(content)
    except ValueError as e:
        raise ValueError(f"'{checkpoint}': {e}, or a backbone of "
                         'tools/extract_backbone.py') from None
    out = Path(work_dir, 'backbone.pth')
    if not _is_up_to_date(out, checkpoint):
        save_backbone(backbone, out, origin_of(checkpoint, content, 'online'))
    return str(out), backbone


def _is_up_to_date(out: Path, checkpoint: str) -> bool:
    if (not out.is_file()
            or out.stat().st_mtime < os.stat(checkpoint).st_mtime):
        return False
    meta = load_checkpoint(str(out)).get('meta')
    return (isinstance(meta, dict)
            and meta.get('source') == Path(checkpoint).name)


def save_backbone_as_model(backbone: OrderedDict, out: str) -> str:
    """Write a backbone as the checkpoint of a whole model; return the path.

    ``test.py`` loads this file for a config that trains nothing: the backbone
    has all weights of such a model.
    """
    weights = OrderedDict(
        (f'backbone.{name}', value) for name, value in backbone.items()
        if not name.startswith('fc.'))
    with atomic_write(out) as file:
        torch.save(dict(state_dict=weights), file)
    return out


def pretrained_parts(cfg: Config) -> list[str]:
    """Return the dotted names of the model parts that load the backbone.

    These are the parts with ``init_cfg`` of type Pretrained, or
    ``model.backbone`` if there is none.
    """
    parts = [path[:-len('.init_cfg')]
             for path, _ in parts_of_type(cfg.model, 'Pretrained', 'model')
             if path.endswith('.init_cfg')]
    if parts:
        return parts
    if 'backbone' not in cfg.model:
        raise ValueError(f"the model of '{cfg.filename}' has no backbone: "
                         'use a config like those in configs/benchmarks/')
    return ['model.backbone']


def pretrained_options(cfg: Config, path: str) -> list[str]:
    """Return the ``--cfg-options`` that load the backbone file ``path``.

    Raises:
        ValueError: ``--cfg-options`` cannot represent the path.
    """
    if set(path) & set(' ,()[]"\''):
        raise ValueError(
            f"'{path}' has a space, a comma, a bracket or a quote, which "
            '--cfg-options cannot represent: choose another --work-dir, or '
            'for an extracted backbone another path')
    options = []
    if cfg.model.get('pretrained') is not None:  # older key of mmseg
        options.append('model.pretrained=None')
    for part in pretrained_parts(cfg):
        options += [f'{part}.init_cfg.type=Pretrained',
                    f'{part}.init_cfg.checkpoint={path}']
    return options


def check_fit(cfg: Config, backbone: OrderedDict) -> None:
    """Raise ValueError if the backbone does not fit the config's model.

    Names and shapes must match exactly, because MMEngine skips weights that do
    not match without an error. Several model parts can share the backbone, as
    in C4 detectors, whose head has stage 4. The extra norm layer of such a
    head has no pre-trained weights.
    """
    expected = {}
    for part in pretrained_parts(cfg):
        with DefaultScope.overwrite_default_scope(
                cfg.get('default_scope', 'mmengine')):
            node = dict(reduce(getitem, part.split('.'), cfg))
            node.pop('init_cfg', None)
            module = MODELS.build(node)
        expected.update((name, value.shape)
                        for name, value in module.state_dict().items()
                        if not name.startswith('norm.'))
    found = weight_shapes(backbone)
    wrong = sorted(name for name in expected.keys() | found.keys()
                   if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f'{len(wrong)} of {len(expected)} weights do not fit, for example '
            f"'{name}', {_size(found.get(name))} in the checkpoint and "
            f'{_size(expected.get(name))} in the config: '
            f'{_cure(cfg, backbone)}')


def _size(shape: Optional[torch.Size]) -> str:
    return 'missing' if shape is None else 'x'.join(map(str, shape)) or '1'


def _cure(cfg: Config, backbone: OrderedDict) -> str:
    depth = resnet_depth(backbone)
    config_depth = cfg.model.backbone.get('depth')
    if None not in (depth, config_depth) and depth != config_depth:
        return (f'the checkpoint is a ResNet-{depth}, the config a '
                f'ResNet-{config_depth}: use a checkpoint of that depth, or '
                f'set --cfg-options model.backbone.depth={depth} and the '
                'in_channels of the following parts')
    return (f"the config's backbone is {cfg.model.backbone.type}: use a "
            'checkpoint of the same network, or a config with type=ResNet and '
            'the depth of the checkpoint')
