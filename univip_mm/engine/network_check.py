"""Check of tensor shapes: run the parts of UniVIP on the meta device."""
from collections.abc import Callable
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope

from ..registry import MODELS
from .config import parts_of_type

PARTS = ('backbone', 'neck', 'head', 'fusion_neck')


def check_network(cfg: Config, batch_size: Optional[int] = None) -> None:
    """Check that the parts of UniVIP fit the views and each other.

    The meta device computes shapes only. Other models are not checked. The
    default of ``batch_size``, images per process, is the config's.

    Raises:
        ValueError: One line with the part, the reason and the keys to check.
    """
    if cfg.get('model', {}).get('type') not in ('UniVIP', 'univip_mm.UniVIP'):
        return
    for name in PARTS:
        if name not in cfg.model:
            raise ValueError(f'the config has no model.{name}: see '
                             'configs/_base_/models/univip_r50.py')
    path, crop = next(parts_of_type(cfg.train_dataloader, 'OverlapSceneCrop',
                                    'train_dataloader'), ('', None))
    if crop is None:
        return
    if batch_size is None:
        batch_size = cfg.train_dataloader.get('batch_size', 1)
    distributed = cfg.get('launcher', 'none') != 'none'
    if distributed and any(parts_of_type(cfg.model, 'SyncBN', 'model')):
        batch_size = max(2, batch_size)  # SyncBN pools over the ranks
    with DefaultScope.overwrite_default_scope('univip_mm'):
        parts = {name: revert_sync_batchnorm(
            MODELS.build(cfg.model[name])).to('meta') for name in PARTS}
    with torch.device('meta'), torch.no_grad():
        for key, default in (('scene_size', 224), ('instance_size', 96)):
            features = _run_branch(parts, f'{path}.{key}',
                                   crop.get(key, default), batch_size)
        instances = torch.stack([features] * crop.get('num_instances', 4), 1)
        fused = _run(parts['fusion_neck'], (instances, ), 'model.fusion_neck',
                     'model.fusion_neck.in_channels and .num_instances')[0]
    if fused.shape[1] != features.shape[1]:
        raise ValueError(
            f'model.fusion_neck gives {fused.shape[1]} channels and model.head'
            f'.predictor {features.shape[1]}: give both the same out_channels')


def _run_branch(parts: dict, key: str, size: int,
                batch_size: int) -> torch.Tensor:
    """Return the predictions of a (B, 3, size, size) view, (B, C)."""
    view = torch.empty(batch_size, 3, size, size)
    batch = f'train_dataloader.batch_size = {batch_size}'
    features = _run(parts['backbone'], view, 'model.backbone',
                    f'{key} = {size} and {batch}')
    features = _run(parts['neck'], features, 'model.neck',
                    f'model.neck.in_channels and {batch}')
    return _run(parts['head'].predictor, list(features),
                'model.head.predictor', 'model.head.predictor.in_channels')[0]


def _run(part: Callable, inputs: Any, name: str, keys: str) -> Any:
    try:
        return part(inputs)
    except Exception as e:  # the part may raise any type
        reason = ' '.join(str(e).split())[:200]
        raise ValueError(f'{name} cannot be run ({type(e).__name__}: '
                         f'{reason}): check {keys}') from None
