"""Training samples for pictures: their views before and after augmentation."""
import copy
import os.path as osp
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from torch import nn

from ..datasets.transforms import EncodedImage, OverlapSceneCrop
from ..datasets.wrappers import leaves, replace_leaves
from ..registry import DATASETS, MODELS
from .views import draw_scenes


class ViewSource(NamedTuple):
    """Data set whose pipeline ends after ``OverlapSceneCrop``.

    A sample of ``dataset`` has the keys that ``crop`` adds, and ``photo``, the
    whole image (H, W, 3) uint8, BGR. ``pack`` is the rest of the pipeline. Of
    joined data sets, ``crop`` and ``pack`` are the first one's.
    """
    dataset: Any
    crop: OverlapSceneCrop
    pack: Compose


def open_views(dataset: Any) -> ViewSource:
    """Return a copy of the data set that does not pack its samples.

    Setting the epoch of the data set also sets the epoch of the copy.

    Raises:
        ValueError: A pipeline has no ``OverlapSceneCrop``, or the data set is
            in a wrapper that is not supported.
    """
    first = leaves(dataset)[0]
    steps, index = _find_crop(first)
    return ViewSource(replace_leaves(dataset, _open), steps[index],
                      Compose(steps[index + 1:]))


def open_config(cfg: Config) -> tuple[ViewSource, nn.Module]:
    """Build the training data of a config, and its data preprocessor."""
    source = open_views(DATASETS.build(cfg.train_dataloader.dataset))
    preprocessor = MODELS.build({'type': 'UniVIPDataPreprocessor',
                                 **cfg.model.get('data_preprocessor', {})})
    return source, preprocessor


def _open(dataset: Any) -> Any:
    steps, index = _find_crop(dataset)
    opened = copy.copy(dataset)
    crop = copy.copy(steps[index])
    crop.cut = 'worker'  # a picture needs the views
    opened.pipeline = Compose([*steps[:index], _keep_photo, crop])
    return opened


def _find_crop(dataset: Any) -> tuple[list, int]:
    """Return the transforms and the position of ``OverlapSceneCrop``."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    for index, step in enumerate(steps):
        if isinstance(step, OverlapSceneCrop):
            return steps, index
    raise ValueError(
        f'train_dataloader.dataset is a {type(dataset).__name__} without '
        'OverlapSceneCrop in its pipeline: give a pre-training config of '
        'UniVIP')


def _keep_photo(results: dict) -> dict:
    photo = results['img']
    if isinstance(photo, EncodedImage):
        photo = photo.decode()
    return {**results, 'photo': photo}


def augmented_views(samples: Sequence[dict], pack: Compose,
                    preprocessor: nn.Module) -> list[list[np.ndarray]]:
    """Augment the views of samples as in training, without normalization.

    The samples and ``pack`` are of one :class:`ViewSource`.

    Returns:
        list: For each sample its 2 + K views, (h, w, 3) uint8, RGB. If the
        target branch has its own views, these are the online branch's.
    """
    batch = default_collate([pack(dict(sample)) for sample in samples])
    with torch.no_grad():
        data = preprocessor(batch, training=True)
    mean, std = preprocessor.mean, preprocessor.std
    views = [
        (view * std + mean).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        .cpu().numpy() for view in data['inputs'][:len(samples[0]['img'])]
    ]
    return list(map(list, zip(*views)))


def draw_samples(samples: Sequence[dict],
                 augmented: Optional[list[list[np.ndarray]]] = None,
                 **kwargs) -> list[np.ndarray]:
    """Draw each sample of a :class:`ViewSource` with :func:`draw_scenes`.

    The views of :func:`augmented_views` form a second line.
    """
    keys = ('proposals', 'scene_boxes', 'overlap_box', 'instance_boxes',
            'num_proposed')
    return [
        draw_scenes(sample['photo'][..., ::-1],
                    **{key: sample[key] for key in keys},
                    views=[view[..., ::-1] for view in sample['img']],
                    title=_title(sample), augmented=views, **kwargs)
        for sample, views in zip(samples, augmented or [None] * len(samples))
    ]


def _title(sample: dict) -> str:
    height, width = sample['photo'].shape[:2]
    return (f'{osp.basename(sample["img_path"])}   {width} x {height}, '
            f'{len(sample["proposals"])} proposals; instances that are '
            f'proposals: {sample["num_proposed"]} of '
            f'{len(sample["instance_boxes"])}')
