"""What a frozen backbone knows of a COCO data set: classifiers on features of
whole images, and of their objects."""
from pathlib import Path
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np
import torch
from torch import nn

from univip_mm.evaluation.knn import knn_predict
from univip_mm.evaluation.linear import linear_scores, standardize
from univip_mm.evaluation.metrics import average_precision
from univip_mm.io.coco_json import read_coco

BATCH = 128
MIN_SIDE = 8  # of an object, pixels: a smaller one shows nothing


class Split(NamedTuple):
    """A split's pictures, RGB uint8, and what is on them.

    ``images`` (N, 3, H, W) and the classes that are on each, ``labels``
    (N, L) bool; ``objects`` (M, 3, S, S), cut out at their boxes, and the
    class of each, ``classes`` (M,).
    """
    images: torch.Tensor
    labels: np.ndarray
    objects: torch.Tensor
    classes: torch.Tensor


def load_split(ann_file: Union[str, Path], folder: Union[str, Path],
               image_size: tuple[int, int], object_size: int,
               max_objects: int, max_images: Optional[int] = None) -> Split:
    """Read a split into memory.

    Args:
        ann_file (str or Path): COCO json.
        folder (str or Path): Of the images.
        image_size (tuple): Width and height that the images are resized to,
            pixels.
        object_size (int): Side that the objects are resized to, pixels.
        max_objects (int): The first so many objects are taken, of those that
            are at least ``MIN_SIDE`` pixels wide and high.
        max_images (int, optional): The first so many images are taken.
            Defaults to None, all.

    Raises:
        FileNotFoundError: An image is missing.
    """
    content = read_coco(ann_file)
    ids = sorted(x['id'] for x in content['categories'])
    things = {}
    for thing in content['annotations']:
        things.setdefault(thing['image_id'], []).append(thing)
    images, labels, objects, classes = [], [], [], []
    for image in content['images'][:max_images]:
        picture = read_picture(Path(folder, image['file_name']), ann_file)
        images.append(to_tensor(picture, image_size))
        here = things.get(image['id'], [])
        labels.append(np.isin(ids, [x['category_id'] for x in here]))
        large = [x for x in here if min(x['bbox'][2:]) >= MIN_SIDE]
        for thing in large[:max_objects - len(objects)]:
            x, y, w, h = (round(v) for v in thing['bbox'])
            cut = picture[max(y, 0):y + h, max(x, 0):x + w]
            objects.append(to_tensor(cut, (object_size, object_size)))
            classes.append(ids.index(thing['category_id']))
    return Split(
        torch.stack(images), np.stack(labels), torch.stack(objects),
        torch.tensor(classes))


def read_picture(path: Path, ann_file: Union[str, Path]) -> np.ndarray:
    """An image of a COCO json, (H, W, 3), BGR.

    Raises:
        FileNotFoundError: It is missing, or is not an image.
    """
    picture = cv2.imread(str(path))
    if picture is None:
        raise FileNotFoundError(f"there is no image '{path}' of '{ann_file}'")
    return picture


def to_tensor(picture: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """A picture (H, W, 3), BGR, resized to a width and height: (3, H, W),
    RGB."""
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small[..., ::-1].copy()).permute(2, 0, 1)


@torch.no_grad()
def pooled_features(backbone: nn.Module, pictures: torch.Tensor,
                    preprocessor: nn.Module) -> torch.Tensor:
    """The backbone's last output, averaged over its positions, (N, C), on the
    CPU; computed where the backbone is.

    Args:
        backbone (nn.Module): Its mode is left as it is.
        pictures (Tensor): (N, 3, H, W) uint8, RGB.
        preprocessor (nn.Module): Whose ``mean`` and ``std`` are taken.
    """
    device = next(backbone.parameters()).device
    mean, std = preprocessor.mean.to(device), preprocessor.std.to(device)
    features = []
    for batch in pictures.split(BATCH):
        batch = (batch.to(device).float() - mean) / std
        batch = batch.contiguous(memory_format=torch.channels_last)
        features.append(backbone(batch)[-1].mean((2, 3)).cpu())
    return torch.cat(features)


@torch.no_grad()
def estimate_statistics(backbone: nn.Module, pictures: torch.Tensor,
                        preprocessor: nn.Module) -> None:
    """Set the running statistics of the backbone's BN layers to the means
    over batches of pictures, and the backbone to evaluation mode.

    Those of a pre-training are of its views, whose sizes and scales are not
    those of whole images, and which UniVIP has others of than BYOL; so each
    network gets the statistics of what it is measured on.

    Args:
        backbone (nn.Module): Changed in place.
        pictures (Tensor): (N, 3, H, W) uint8, RGB; the first 1024 are taken.
        preprocessor (nn.Module): Whose ``mean`` and ``std`` are taken.
    """
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean
    backbone.train()
    pooled_features(backbone, pictures[:1024], preprocessor)
    backbone.eval()


def effective_rank(maps: torch.Tensor) -> float:
    """How many directions the channels of maps fill: the exponential of the
    entropy of their covariance's eigenvalues, scaled to sum to one (Roy and
    Vetterli, EUSIPCO 2007). From 1, all in one direction, to C, all alike.

    Args:
        maps (Tensor): (N, C, H, W); every position is a sample.
    """
    samples = maps.transpose(0, 1).flatten(1).double()
    values = torch.linalg.eigvalsh(samples.cov()).clamp_min(0)
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()


def measure(backbone: nn.Module, preprocessor: nn.Module, train: Split,
            val: Split) -> dict[str, float]:
    """Linear mAP on whole images, and the accuracy of a linear classifier and
    of the 20 nearest neighbours on objects, in percent. The classifiers are
    fitted on ``train`` and scored on ``val``; BN has the statistics of the
    images of ``train``."""
    from sklearn.linear_model import LogisticRegression
    estimate_statistics(backbone, train.images, preprocessor)

    def features_of(name: str) -> list[torch.Tensor]:
        return [
            pooled_features(backbone, getattr(split, name), preprocessor)
            for split in (train, val)
        ]

    known, asked = features_of('images')
    scores = linear_scores(known, torch.from_numpy(train.labels), asked)
    seen = val.labels.any(axis=0)  # of the others there is nothing to find
    mean_ap = average_precision(
        val.labels[:, seen], scores.numpy()[:, seen]).mean()

    known, asked = features_of('objects')
    votes = knn_predict(
        known, train.classes, asked, train.labels.shape[1], k=20)
    knn = (votes.argmax(1) == val.classes).float().mean().item()
    known, asked = standardize(known, asked)
    classifier = LogisticRegression(C=1 / known.shape[1], max_iter=1000)
    classifier.fit(known, train.classes)
    linear = classifier.score(asked, val.classes)
    return dict(
        linear_mAP=float(100 * mean_ap),
        object_linear=float(100 * linear),
        object_knn=100 * knn)
