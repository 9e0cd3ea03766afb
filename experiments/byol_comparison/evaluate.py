"""Frozen features of a backbone: linear classifiers, k-NN, effective rank."""
from pathlib import Path
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np
import torch
from torch import nn

from univip_mm.evaluation.knn import knn_predict
from univip_mm.evaluation.linear import linear_scores, standardize
from univip_mm.evaluation.metrics import average_precision
from univip_mm.io import images as image_files
from univip_mm.io.coco_json import image_path, read_coco

BATCH_SIZE = 128
MIN_SIDE = 8  # pixels; smaller objects are not recognizable


class Split(NamedTuple):
    """Images and objects of a split, RGB uint8, with their classes."""
    images: torch.Tensor  # (N, 3, H, W)
    labels: np.ndarray  # (N, L) bool, the classes in each image
    objects: torch.Tensor  # (M, 3, S, S), the pixels in the boxes
    classes: torch.Tensor  # (M,), the class of each object
    image_of: torch.Tensor  # (M,), the position of its image in ``images``


def load_split(ann_file: Union[str, Path], folder: Union[str, Path],
               image_size: tuple[int, int], object_size: int,
               max_objects: int, max_images: Optional[int] = None) -> Split:
    """Read a split into memory.

    Args:
        ann_file (str or Path): COCO json.
        folder (str or Path): Folder of the images.
        image_size (tuple): Width and height that the images are resized to,
            pixels.
        object_size (int): Side that the objects are resized to, pixels.
        max_objects (int): Maximum number of objects. Objects below
            ``MIN_SIDE`` pixels are skipped.
        max_images (int, optional): Maximum number of images. Defaults to
            None, all images.

    Raises:
        FileNotFoundError: An image is missing.
    """
    content = read_coco(ann_file)
    ids = sorted(x['id'] for x in content['categories'])
    annotations = {}
    for annotation in content['annotations']:
        annotations.setdefault(annotation['image_id'], []).append(annotation)
    images, labels, objects, classes, image_of = [], [], [], [], []
    for image in content['images'][:max_images]:
        pixels = read_image(image_path(folder, image['file_name']), ann_file)
        images.append(to_tensor(pixels, image_size))
        found = annotations.get(image['id'], [])
        labels.append(np.isin(ids, [x['category_id'] for x in found]))
        large = [x for x in found if min(x['bbox'][2:]) >= MIN_SIDE]
        for annotation in large[:max_objects - len(objects)]:
            x, y, w, h = (round(v) for v in annotation['bbox'])
            crop = pixels[max(y, 0):max(y + h, 0), max(x, 0):max(x + w, 0)]
            if crop.size == 0:
                raise ValueError(
                    f"'{ann_file}' has for image id {image['id']} the bbox "
                    f"{annotation['bbox']}, which is outside of the image: "
                    'correct or remove it')
            objects.append(to_tensor(crop, (object_size, object_size)))
            classes.append(ids.index(annotation['category_id']))
            image_of.append(len(images) - 1)
    return Split(
        torch.stack(images), np.stack(labels), torch.stack(objects),
        torch.tensor(classes), torch.tensor(image_of))


def read_image(path: str, ann_file: Union[str, Path]) -> np.ndarray:
    """Read an image of a COCO json, (H, W, 3) uint8, BGR.

    Raises:
        FileNotFoundError: The file is missing or not an image.
    """
    try:
        return image_files.read_image(path)
    except (OSError, image_files.UnreadableImageError) as e:
        raise FileNotFoundError(
            f"cannot read '{path}', which '{ann_file}' lists ({e}): check the "
            'folder of the images') from None


def to_tensor(pixels: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Resize a BGR image (H, W, 3) to (width, height), RGB (3, h, w)."""
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small[..., ::-1].copy()).permute(2, 0, 1)


@torch.no_grad()
def pooled_features(backbone: nn.Module, images: torch.Tensor,
                    preprocessor: nn.Module) -> torch.Tensor:
    """Compute the spatial mean of the backbone's last output.

    Args:
        backbone (nn.Module): Backbone, in the mode and on the device to use.
        images (Tensor): (N, 3, H, W) uint8, RGB.
        preprocessor (nn.Module): Source of ``mean`` and ``std``.

    Returns:
        Tensor: (N, C), on the CPU.
    """
    device = next(backbone.parameters()).device
    mean, std = preprocessor.mean.to(device), preprocessor.std.to(device)
    features = []
    for batch in images.split(BATCH_SIZE):
        batch = (batch.to(device).float() - mean) / std
        batch = batch.contiguous(memory_format=torch.channels_last)
        features.append(backbone(batch)[-1].mean((2, 3)).cpu())
    return torch.cat(features)


@torch.no_grad()
def estimate_bn_statistics(backbone: nn.Module, images: torch.Tensor,
                           preprocessor: nn.Module) -> None:
    """Re-estimate the backbone's BN statistics and set evaluation mode.

    Statistics from pre-training describe its crops, which differ between
    methods, so they are re-estimated on the evaluation images: as means over
    batches.

    Args:
        backbone (nn.Module): Backbone, changed in place.
        images (Tensor): (N, 3, H, W) uint8, RGB. The first 1024 are used.
        preprocessor (nn.Module): Source of ``mean`` and ``std``.
    """
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # cumulative mean
    backbone.train()
    pooled_features(backbone, images[:1024], preprocessor)
    backbone.eval()


def effective_rank(maps: torch.Tensor) -> float:
    """Compute the effective rank of the channels of feature maps.

    The rank is the exponential of the entropy of the eigenvalues of the
    channels' covariance, scaled to sum to one (Roy and Vetterli, EUSIPCO
    2007): 1 if all channels are collinear, C if all directions have the same
    variance.

    Args:
        maps (Tensor): (N, C, H, W). Each position is a sample.
    """
    samples = maps.transpose(0, 1).flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(samples.cov()).clamp_min(0)
    shares = eigenvalues / eigenvalues.sum()
    return torch.special.entr(shares).sum().exp().item()


def leave_one_image_out(features: torch.Tensor, split: Split,
                        k: int = 20) -> float:
    """Return the accuracy of neighbours in other images, in percent.

    Args:
        features (Tensor): Features of the objects of ``split``, (M, C).
        split (Split): Classes and images of the objects.
        k (int): Number of neighbours. Defaults to 20.
    """
    correct = 0
    for image in split.image_of.unique():
        own = split.image_of == image
        votes = knn_predict(features[~own], split.classes[~own],
                            features[own], split.labels.shape[1], k=k)
        correct += int((votes.argmax(1) == split.classes[own]).sum())
    return 100 * correct / len(features)


def measure(backbone: nn.Module, preprocessor: nn.Module, train: Split,
            val: Optional[Split] = None) -> dict[str, float]:
    """Score the frozen features of a backbone.

    The classifiers are fitted on ``train`` and scored on ``val``. BN
    statistics are re-estimated on the images of ``train``. Without ``val``,
    the only score is ``object_knn``, by neighbours in other images.

    Returns:
        dict[str, float]: In percent: ``linear_mAP`` of linear multi-label
        classifiers on images; ``object_linear`` and ``object_knn``, the
        accuracy of a linear classifier and of 20 neighbours on objects. And
        ``rank``, the effective rank of the features of ``val``'s images.
    """
    from sklearn.linear_model import LogisticRegression
    estimate_bn_statistics(backbone, train.images, preprocessor)
    if val is None:
        features = pooled_features(backbone, train.images, preprocessor)
        return dict(
            object_knn=leave_one_image_out(pooled_features(
                backbone, train.objects, preprocessor), train),
            rank=effective_rank(features[:, :, None, None]))

    train_features, test_features = (
        pooled_features(backbone, split.images, preprocessor)
        for split in (train, val))
    scores = linear_scores(
        train_features, torch.from_numpy(train.labels), test_features)
    present = val.labels.any(axis=0)  # AP is undefined for other classes
    mean_ap = average_precision(
        val.labels[:, present], scores.numpy()[:, present]).mean()
    rank = effective_rank(test_features[:, :, None, None])

    train_features, test_features = (
        pooled_features(backbone, split.objects, preprocessor)
        for split in (train, val))
    votes = knn_predict(train_features, train.classes, test_features,
                        train.labels.shape[1], k=20)
    knn = (votes.argmax(1) == val.classes).float().mean().item()
    train_features, test_features = standardize(train_features, test_features)
    classifier = LogisticRegression(
        C=1 / train_features.shape[1], max_iter=1000)
    classifier.fit(train_features, train.classes)
    linear = classifier.score(test_features, val.classes)
    return dict(
        linear_mAP=float(100 * mean_ap),
        object_linear=float(100 * linear),
        object_knn=100 * knn,
        rank=rank)
