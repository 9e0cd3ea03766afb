"""Features, transport plans and similarity maps of a network."""
from typing import NamedTuple

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..engine.branches import backbone_of
from ..models.l2_normalize import l2_normalize
from ..models.pooling import last_output, pool
from ..utils.progress import track

_BATCH_SIZE = 64


class Transport(NamedTuple):
    """Transport plan of one image: online instances (rows), target ones."""
    similarity: np.ndarray  # (K, K), cosines
    plan: np.ndarray  # (K, K), sums to one
    supply: np.ndarray  # (K,), of the online instances
    demand: np.ndarray  # (K,), of the target instances


def preprocess_views(model: nn.Module,
                     views: list[np.ndarray]) -> torch.Tensor:
    """Normalize views (h, w, 3) uint8, RGB, to (N, 3, h, w) for the model."""
    bgr = np.stack(views)[..., ::-1].transpose(0, 3, 1, 2)
    inputs = torch.from_numpy(np.ascontiguousarray(bgr))
    return model.data_preprocessor(dict(inputs=inputs), False)['inputs']


@torch.no_grad()
def embed(model: nn.Module, views: list[np.ndarray],
          branch: str = 'online') -> torch.Tensor:
    """Compute pooled features of length one, (N, C), on the CPU.

    Args:
        model (nn.Module): Model in evaluation mode.
        views (list[np.ndarray]): N views of one size, (h, w, 3) uint8, RGB.
        branch (str): 'online' or 'target'. Defaults to 'online'.
    """
    backbone, features = backbone_of(model, branch), []
    for start in track(range(0, len(views), _BATCH_SIZE), unit='batch',
                       desc='features'):
        inputs = preprocess_views(model, views[start:start + _BATCH_SIZE])
        features.append(pool(backbone(inputs)))
    return l2_normalize(torch.cat(features)).cpu()


def nearest(features: torch.Tensor, groups: list, query: int,
            k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find up to k features most similar to a query, in other groups.

    Args:
        features (Tensor): Features of length one, (N, C).
        groups (list): Group of each feature, such as its image.
        query (int): Index of the query.
        k (int): Largest number of neighbours.

    Returns:
        tuple[np.ndarray, np.ndarray]: Indices and cosines, descending.
    """
    cosines = (features @ features[query]).numpy()
    allowed = np.array([group != groups[query] for group in groups])
    order = np.argsort(-np.where(allowed, cosines, -np.inf), kind='stable')
    order = order[:min(k, allowed.sum())]
    return order, cosines[order]


@torch.no_grad()
def transport_of(model: nn.Module, views: list[np.ndarray]) -> Transport:
    """Compute the transport plan of the instance-instance loss.

    Args:
        model (nn.Module): UniVIP with ``SinkhornOTLoss``, in evaluation mode.
        views (list[np.ndarray]): [scene_1, scene_2, instance_1, ...,
            instance_K], (h, w, 3) uint8, RGB.

    Raises:
        ValueError: The model has no ``SinkhornOTLoss``.
    """
    loss = getattr(model, 'instance_loss', None)
    if not hasattr(loss, 'plan'):
        raise ValueError(
            f'{type(model).__name__} has no instance_loss with a transport '
            'plan: give a config of UniVIP with SinkhornOTLoss')
    scenes = preprocess_views(model, views[:2])
    instances = preprocess_views(model, views[2:])

    def online(x: torch.Tensor) -> torch.Tensor:
        projection = model.neck(model.backbone(x))[0]
        return model.head.predictor([projection])[0]

    found = loss.plan(online(instances)[None],
                      model.target_net(instances)[0][None],
                      online(scenes).mean(0, keepdim=True),
                      model.target_net(scenes)[0].mean(0, keepdim=True))
    return Transport(*(getattr(found, name)[0].cpu().numpy()
                       for name in Transport._fields))


def cut_scene(sample: dict, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut out the first scene of a sample, with ``size`` as its longer side.

    Returns:
        tuple[np.ndarray, np.ndarray]: The scene (h, w, 3) uint8, RGB, and the
        boxes of its instances, (K, 4) xyxy in its pixels.
    """
    x1, y1, x2, y2 = sample['scene_boxes'][0]
    scale = size / max(x2 - x1, y2 - y1)
    width, height = (max(1, round(x * scale)) for x in (x2 - x1, y2 - y1))
    scene = mmcv.imresize(sample['photo'][y1:y2, x1:x2], (width, height),
                          interpolation='bicubic')
    boxes = (sample['instance_boxes'] - [x1, y1, x1, y1]) * scale
    return np.ascontiguousarray(scene[..., ::-1]), boxes


@torch.no_grad()
def similarity_maps(model: nn.Module, scene: np.ndarray,
                    instances: list[np.ndarray],
                    branch: str = 'online') -> np.ndarray:
    """Compute cosines (K, H, W) of instances with each pixel of a scene.

    Args:
        model (nn.Module): Model in evaluation mode.
        scene (np.ndarray): (H, W, 3) uint8, RGB.
        instances (list[np.ndarray]): K views of one size, as ``scene``.
        branch (str): 'online' or 'target'. Defaults to 'online'.

    Raises:
        ValueError: The last output of the backbone is not a feature map.
    """
    backbone = backbone_of(model, branch)
    feature_map = last_output(backbone(preprocess_views(model, [scene])))
    if feature_map.ndim != 4:
        raise ValueError(
            f'{type(backbone).__name__} returns {tuple(feature_map.shape)}, '
            'which is no feature map (B, C, H, W): draw the similarity map '
            'of another network')
    pooled = pool(backbone(preprocess_views(model, instances)))
    maps = cosine_map(feature_map[0], pooled)
    return upsample(maps, scene.shape[:2]).cpu().numpy()


def cosine_map(feature_map: torch.Tensor,
               features: torch.Tensor) -> torch.Tensor:
    """Compute cosines (K, h, w) of features (K, C) with a map (C, h, w)."""
    positions = l2_normalize(feature_map.permute(1, 2, 0))
    return torch.einsum('hwc,kc->khw', positions, l2_normalize(features))


def upsample(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize maps (K, h, w) to (K, H, W) bilinearly."""
    return F.interpolate(maps[None], size=size, mode='bilinear',
                         align_corners=False)[0]
