"""A short detection fine-tune: how far a detector comes in a few minutes that
starts from a pre-trained backbone."""
import contextlib
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any, Union

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork, box_convert

from experiments.byol_comparison.evaluate import read_picture, to_tensor
from univip_mm.io.coco_json import read_coco

BATCH = 16


class _Pyramid(nn.Module):
    """The backbone's last three stages in a feature pyramid."""

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


def load_boxes(ann_file: Union[str, Path], folder: Union[str, Path],
               image_size: tuple[int, int],
               max_images: int) -> tuple[list, list[dict]]:
    """Images and their objects.

    Args:
        ann_file (str or Path): COCO json.
        folder (str or Path): Of the images.
        image_size (tuple): Width and height that the images are resized to,
            pixels.
        max_images (int): The first so many that have objects are taken.

    Returns:
        tuple: Images (3, H, W), RGB of 0 to 1, and for each a dict of
        ``boxes`` (M, 4), xyxy in pixels, and ``labels`` (M,), from 1 in the
        order of the categories' ids.

    Raises:
        FileNotFoundError: An image is missing.
    """
    content = read_coco(ann_file)
    ids = sorted(x['id'] for x in content['categories'])
    things: dict[Any, list] = {}
    for thing in content['annotations']:
        if min(thing['bbox'][2:]) > 0 and not thing.get('iscrowd'):
            things.setdefault(thing['image_id'], []).append(thing)
    images, targets = [], []
    for image in content['images']:
        if len(images) == max_images or image['id'] not in things:
            continue
        picture = read_picture(Path(folder, image['file_name']), ann_file)
        height, width = picture.shape[:2]
        images.append(to_tensor(picture, image_size).float() / 255)
        here = things[image['id']]
        boxes = torch.tensor([x['bbox'] for x in here], dtype=torch.float32)
        scale = torch.tensor([image_size[0] / width, image_size[1] / height])
        targets.append(dict(
            boxes=box_convert(boxes, 'xywh', 'xyxy') * scale.repeat(2),
            labels=torch.tensor([
                ids.index(x['category_id']) + 1 for x in here])))
    return images, targets


def fine_tune(backbone: nn.Module, preprocessor: nn.Module, train: tuple,
              val: tuple, num_classes: int, epochs: int,
              seed: int) -> dict[str, float]:
    """Fine-tune torchvision's FCOS on top of the backbone, all layers of it,
    and score it.

    Args:
        backbone (nn.Module): A ResNet with ``out_indices``. Changed in
            place.
        preprocessor (nn.Module): Whose ``mean`` and ``std`` are taken.
        train (tuple): As of :func:`load_boxes`.
        val (tuple): The same.
        num_classes (int): Of the objects.
        epochs (int): Over ``train``.
        seed (int): Of the new layers, and of the order of the images.

    Returns:
        dict[str, float]: COCO's ``box_AP`` and ``box_AP50``, in percent.
    """
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    torch.manual_seed(seed)
    images, targets = train
    height, width = images[0].shape[1:]
    backbone.out_indices = (1, 2, 3)
    device = next(backbone.parameters()).device
    with torch.no_grad():
        backbone.eval()
        channels = [x.shape[1] for x in backbone(images[0][None].to(device))]
    detector = FCOS(
        _Pyramid(backbone, channels, 64), num_classes + 1,
        min_size=min(height, width), max_size=max(height, width),
        image_mean=(preprocessor.mean.flatten() / 255).tolist(),
        image_std=(preprocessor.std.flatten() / 255).tolist(),
        anchor_generator=AnchorGenerator(
            sizes=((8, ), (16, ), (32, )), aspect_ratios=((1.0, ), ) * 3))
    detector = detector.to(device)
    optimizer = torch.optim.AdamW(
        detector.parameters(), lr=1e-3, weight_decay=0.05)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=steps)
    detector.train()
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for chosen in order[:len(images) // BATCH * BATCH].split(BATCH):
            losses = detector(
                *_flipped(images, targets, chosen.tolist(), device))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 10)
            optimizer.step()
            schedule.step()
    return _score(detector.eval(), *val, device)


def _flipped(images: list, targets: list, chosen: list,
             device: torch.device) -> tuple:
    """A batch on the device, half of it mirrored."""
    batch, truth = [], []
    for i in chosen:
        image, boxes = images[i], targets[i]['boxes']
        if torch.rand(()) < 0.5:
            image, boxes = image.flip(-1), boxes.clone()
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        batch.append(image.to(device))
        truth.append(dict(boxes=boxes.to(device),
                          labels=targets[i]['labels'].to(device)))
    return batch, truth


@torch.no_grad()
def _score(detector: nn.Module, images: list, targets: list,
           device: Union[str, torch.device] = 'cpu') -> dict:
    """COCO's AP of a detector, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    truth, found = [], []
    for i in range(0, len(images), BATCH):
        answers = detector([x.to(device) for x in images[i:i + BATCH]])
        for j, answer in enumerate(answers, i):
            target = targets[j]
            truth += [dict(id=len(truth) + n, image_id=j, iscrowd=0,
                           bbox=box, category_id=label, area=box[2] * box[3])
                      for n, (box, label) in enumerate(_rows(target), 1)]
            found += [dict(image_id=j, bbox=box, category_id=label, score=s)
                      for (box, label), s in zip(
                          _rows(answer), answer['scores'].tolist())]
    if not found:
        return dict(box_AP=0.0, box_AP50=0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(
            images=[dict(id=i) for i in range(len(images))],
            annotations=truth, categories=[
                dict(id=i) for i in sorted({x['category_id'] for x in truth})])
        coco.createIndex()
        result = COCOeval(coco, coco.loadRes(found), 'bbox')
        result.evaluate()
        result.accumulate()
        result.summarize()
    return dict(box_AP=float(100 * result.stats[0]),
                box_AP50=float(100 * result.stats[1]))


def _rows(answer: dict) -> list:
    """Boxes as xywh, and labels."""
    boxes = box_convert(answer['boxes'], 'xyxy', 'xywh')
    return [*zip(boxes.tolist(), answer['labels'].tolist())]
