"""Short detection fine-tuning: FCOS for a few minutes on a backbone."""
import contextlib
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any, Union

import torch
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, box_convert

from univip_mm.io.coco_json import image_path, read_coco

from .evaluate import read_image, to_tensor

BATCH_SIZE = 16


def load_boxes(ann_file: Union[str, Path], folder: Union[str, Path],
               image_size: tuple[int, int],
               max_images: int) -> tuple[list, list[dict]]:
    """Read images and the boxes of their objects.

    Args:
        ann_file (str or Path): COCO json.
        folder (str or Path): Folder of the images.
        image_size (tuple): Width and height that the images are resized to,
            pixels.
        max_images (int): Maximum number of images. Images without objects
            are skipped.

    Returns:
        tuple: Images (3, H, W), RGB in [0, 1], and for each image a dict of
        ``boxes`` (M, 4), xyxy in pixels, and ``labels`` (M,), from 1 in the
        order of the category ids.

    Raises:
        FileNotFoundError: An image is missing.
    """
    content = read_coco(ann_file)
    ids = sorted(x['id'] for x in content['categories'])
    annotations: dict[Any, list] = {}
    for annotation in content['annotations']:
        if min(annotation['bbox'][2:]) > 0 and not annotation.get('iscrowd'):
            annotations.setdefault(
                annotation['image_id'], []).append(annotation)
    images, targets = [], []
    for image in content['images']:
        if len(images) == max_images or image['id'] not in annotations:
            continue
        pixels = read_image(image_path(folder, image['file_name']), ann_file)
        height, width = pixels.shape[:2]
        images.append(to_tensor(pixels, image_size).float() / 255)
        found = annotations[image['id']]
        boxes = torch.tensor([x['bbox'] for x in found], dtype=torch.float32)
        scale = torch.tensor([image_size[0] / width, image_size[1] / height])
        targets.append(dict(
            boxes=box_convert(boxes, 'xywh', 'xyxy') * scale.repeat(2),
            labels=torch.tensor([
                ids.index(x['category_id']) + 1 for x in found])))
    return images, targets


def fine_tune(backbone: nn.Module, preprocessor: nn.Module, train: tuple,
              val: tuple, num_classes: int, epochs: int,
              seed: int) -> dict[str, float]:
    """Fine-tune torchvision's FCOS with all layers of the backbone.

    Args:
        backbone (nn.Module): ResNet with ``out_indices``, changed in place.
        preprocessor (nn.Module): Source of ``mean`` and ``std``.
        train (tuple): Images and targets of :func:`load_boxes`.
        val (tuple): Images and targets to score.
        num_classes (int): Number of object classes.
        epochs (int): Number of passes over ``train``.
        seed (int): Seed of the new layers and of the order of the images.

    Returns:
        dict[str, float]: COCO's ``box_AP`` and ``box_AP50``, in percent.
    """
    torch.manual_seed(seed)
    images, targets = train
    device = next(backbone.parameters()).device
    detector = build_detector(
        backbone, preprocessor, images[0].to(device), num_classes).to(device)
    optimizer = torch.optim.AdamW(
        detector.parameters(), lr=1e-3, weight_decay=0.05)
    steps = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=epochs * steps)
    detector.train()
    for _ in range(epochs):
        order = torch.randperm(len(images))[:steps * BATCH_SIZE]
        for indices in order.split(BATCH_SIZE):
            losses = detector(*_random_flip(
                images, targets, indices.tolist(), device))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 10)
            optimizer.step()
            schedule.step()
    return coco_scores(detector.eval(), *val, device)


class _BackboneWithFPN(nn.Module):
    """Feature pyramid on the backbone's last three stages."""

    def __init__(self, backbone: nn.Module, channels: list[int],
                 out_channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = FeaturePyramidNetwork(channels, out_channels)
        self.out_channels = out_channels

    def forward(self, images: torch.Tensor) -> OrderedDict:
        stages = self.backbone(
            images.contiguous(memory_format=torch.channels_last))
        return self.pyramid(OrderedDict(
            (str(i), stage) for i, stage in enumerate(stages)))


def build_detector(backbone: nn.Module, preprocessor: nn.Module,
                   image: torch.Tensor, num_classes: int) -> nn.Module:
    """Build FCOS for images of the size of ``image`` (3, H, W)."""
    height, width = image.shape[1:]
    backbone.out_indices = (1, 2, 3)
    with torch.no_grad():
        backbone.eval()
        channels = [x.shape[1] for x in backbone(image[None])]
    return FCOS(
        _BackboneWithFPN(backbone, channels, 64), num_classes + 1,
        min_size=min(height, width), max_size=max(height, width),
        image_mean=(preprocessor.mean.flatten() / 255).tolist(),
        image_std=(preprocessor.std.flatten() / 255).tolist(),
        anchor_generator=AnchorGenerator(
            sizes=((8, ), (16, ), (32, )), aspect_ratios=((1.0, ), ) * 3))


def _random_flip(images: list, targets: list, indices: list,
                 device: torch.device) -> tuple:
    """Return a batch on the device, each image mirrored or not."""
    batch, truth = [], []
    for i in indices:
        image, boxes = images[i], targets[i]['boxes']
        if torch.rand(()) < 0.5:
            image, boxes = image.flip(-1), boxes.clone()
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        batch.append(image.to(device))
        truth.append(dict(boxes=boxes.to(device),
                          labels=targets[i]['labels'].to(device)))
    return batch, truth


@torch.no_grad()
def coco_scores(detector: nn.Module, images: list, targets: list,
                device: Union[str, torch.device] = 'cpu') -> dict[str, float]:
    """Compute COCO's AP of a detector by pycocotools, in percent."""
    truth, found = [], []
    for i in range(0, len(images), BATCH_SIZE):
        predictions = detector(
            [x.to(device) for x in images[i:i + BATCH_SIZE]])
        for image_id, prediction in enumerate(predictions, i):
            for box, label in _boxes_and_labels(targets[image_id]):
                truth.append(dict(
                    id=len(truth) + 1, image_id=image_id, iscrowd=0, bbox=box,
                    category_id=label, area=box[2] * box[3]))
            found += [
                dict(image_id=image_id, bbox=box, category_id=label, score=s)
                for (box, label), s in zip(
                    _boxes_and_labels(prediction),
                    prediction['scores'].tolist())]
    return _coco_ap(len(images), truth, found)


def _boxes_and_labels(target: dict) -> list[tuple]:
    """Return pairs of a box, xywh, and its label."""
    boxes = box_convert(target['boxes'], 'xyxy', 'xywh')
    return [*zip(boxes.tolist(), target['labels'].tolist())]


def _coco_ap(num_images: int, truth: list[dict],
             found: list[dict]) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    if not found:
        return dict(box_AP=0.0, box_AP50=0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(
            images=[dict(id=i) for i in range(num_images)],
            annotations=truth, categories=[
                dict(id=i) for i in sorted({x['category_id'] for x in truth})])
        coco.createIndex()
        result = COCOeval(coco, coco.loadRes(found), 'bbox')
        result.evaluate()
        result.accumulate()
        result.summarize()
    return dict(box_AP=float(100 * result.stats[0]),
                box_AP50=float(100 * result.stats[1]))
