"""Training samples for pictures: their views before and after augmentation."""
import copy
import os.path as osp
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
import torch
from mmengine.dataset import BaseDataset, Compose, default_collate
from torch import nn

from ..datasets.transforms import EncodedImage, OverlapSceneCrop
from .views import draw_scenes


class ViewSource(NamedTuple):
    """Data set whose pipeline ends after ``OverlapSceneCrop``.

    A sample of ``dataset`` has the keys that ``crop`` adds, and ``photo``, the
    whole image (H, W, 3) uint8, BGR. ``pack`` is the rest of the pipeline.
    """
    dataset: BaseDataset
    crop: OverlapSceneCrop
    pack: Compose


def open_views(dataset: BaseDataset) -> ViewSource:
    """Return a copy of the data set that does not pack its samples.

    The data set itself is not changed. Setting its epoch also sets the epoch
    of the copy.

    Raises:
        ValueError: The pipeline has no ``OverlapSceneCrop``.
    """
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    for index, step in enumerate(steps):
        if isinstance(step, OverlapSceneCrop):
            opened = copy.copy(dataset)
            opened.pipeline = Compose([*steps[:index], _keep_photo, step])
            return ViewSource(opened, step, Compose(steps[index + 1:]))
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
    """Augment views as in training and undo the normalization.

    Args:
        samples (Sequence[dict]): Samples of a :class:`ViewSource`.
        pack (Compose): ``pack`` of the same :class:`ViewSource`.
        preprocessor (nn.Module): Data preprocessor of the model.

    Returns:
        list: For each sample its 2 + K views, (h, w, 3) uint8, RGB. If the
        target branch has its own views, these are the online branch's.
    """
    with torch.no_grad():
        data = preprocessor(
            default_collate([pack(dict(sample)) for sample in samples]),
            training=True)
    mean, std = preprocessor.mean, preprocessor.std
    views = [
        (view * std + mean).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        .cpu().numpy() for view in data['inputs'][:len(samples[0]['img'])]
    ]
    return [[view[i] for view in views] for i in range(len(samples))]


def draw_samples(
        samples: Sequence[dict],
        augmented: Optional[list[list[np.ndarray]]] = None,
        **kwargs) -> list[np.ndarray]:
    """Draw each sample with :func:`draw_scenes`.

    Args:
        samples (Sequence[dict]): Samples of a :class:`ViewSource`.
        augmented (list, optional): Views of :func:`augmented_views`, for a
            second line. Defaults to None.
        **kwargs: Further arguments of :func:`draw_scenes`.

    Returns:
        list[np.ndarray]: Pictures, (height, width, 3) uint8, RGB.
    """
    return [
        draw_scenes(
            image=sample['photo'][..., ::-1],
            proposals=sample['proposals'],
            scene_boxes=sample['scene_boxes'],
            overlap_box=sample['overlap_box'],
            instance_boxes=sample['instance_boxes'],
            num_proposed=sample['num_proposed'],
            views=[view[..., ::-1] for view in sample['img']],
            title=_title(sample),
            augmented=views,
            **kwargs)
        for sample, views in zip(samples, augmented or [None] * len(samples))
    ]


def _title(sample: dict) -> str:
    height, width = sample['photo'].shape[:2]
    return (f'{osp.basename(sample["img_path"])}   {width} x {height}, '
            f'{len(sample["proposals"])} proposals; instances that are '
            f'proposals: {sample["num_proposed"]} of '
            f'{len(sample["instance_boxes"])}')
