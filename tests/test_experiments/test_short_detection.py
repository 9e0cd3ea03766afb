import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from experiments.byol_comparison.detection import (
    coco_scores,
    fine_tune,
    load_boxes,
)
from univip_mm.registry import MODELS


class Preprocessor(nn.Module):
    mean, std = torch.full((3, 1, 1), 110.), torch.full((3, 1, 1), 60.)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """32 dark images of 128 x 96 pixels with a bright square in one of two
    colors, and one image without a square."""
    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(33):
        pixels = rng.integers(0, 40, (96, 128, 3)).astype(np.uint8)
        if i < 32:
            x, y = rng.integers(0, 80), rng.integers(0, 48)
            pixels[y:y + 48, x:x + 48] = [(250, 60, 60), (60, 60, 250)][i % 2]
            annotations.append(dict(
                id=i + 1, image_id=i, category_id=5 + i % 2,
                bbox=[int(x), int(y), 48, 48]))
        Image.fromarray(pixels).save(root / f'{i}.png')
        images.append(dict(id=i, file_name=f'{i}.png'))
    (root / 'all.json').write_text(json.dumps(dict(
        images=images, annotations=annotations,
        categories=[dict(id=6, name='b'), dict(id=5, name='a')])))
    return root


def test_load_boxes_scales_boxes(folder):
    images, targets = load_boxes(folder / 'all.json', folder, (64, 32), 99)
    # Images without objects are skipped.
    assert len(images) == len(targets) == 32
    assert images[0].shape == (3, 32, 64)
    x1, y1, x2, y2 = targets[0]['boxes'][0].tolist()
    assert (x2 - x1, y2 - y1) == (24, 16)
    inside = images[0][:, round(y1) + 1:round(y2) - 1,
                       round(x1) + 1:round(x2) - 1]
    assert inside.mean((1, 2)) == pytest.approx(
        np.array([250, 60, 60]) / 255, abs=0.01)  # RGB
    assert [x['labels'].item() for x in targets[:3]] == [1, 2, 1]
    assert len(load_boxes(folder / 'all.json', folder, (64, 32), 5)[0]) == 5


def test_load_boxes_skips_crowds_and_empty_boxes(folder, tmp_path):
    content = json.loads((folder / 'all.json').read_text())
    content['annotations'] += [
        dict(id=98, image_id=0, category_id=5, bbox=[0, 0, 9, 0]),
        dict(id=99, image_id=0, category_id=5, bbox=[0, 0, 9, 9], iscrowd=1)]
    (tmp_path / 'all.json').write_text(json.dumps(content))
    _, targets = load_boxes(tmp_path / 'all.json', folder, (64, 32), 1)
    assert targets[0]['boxes'].shape == (1, 4)


def test_load_boxes_names_missing_image(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='0.png'):
        load_boxes(folder / 'all.json', tmp_path, (64, 32), 5)


def test_fine_tune_finds_easy_objects(folder):
    split = load_boxes(folder / 'all.json', folder, (128, 96), 99)
    torch.manual_seed(0)
    backbone = MODELS.build(dict(
        type='ResNet', depth=18, base_channels=16, stem_channels=16))
    scores = fine_tune(backbone, Preprocessor(), split, split, 2, 20, seed=0)
    assert scores['box_AP50'] > 50 and scores['box_AP'] <= scores['box_AP50']


class Detector(nn.Module):
    """Detector that returns the true boxes, moved to the right."""

    def __init__(self, targets, by):
        super().__init__()
        self.predictions = iter([
            dict(boxes=x['boxes'] + torch.tensor([by, 0., by, 0.]),
                 labels=x['labels'], scores=torch.ones(len(x['labels'])))
            for x in targets])

    def forward(self, images):
        return [next(self.predictions) for _ in images]


def test_coco_scores_follow_iou_thresholds(folder):
    images, targets = load_boxes(folder / 'all.json', folder, (128, 96), 99)
    assert coco_scores(Detector(targets, 0.), images, targets) == dict(
        box_AP=100, box_AP50=100)
    # IoU of 40 / 56: found up to the threshold 0.70, 5 of the 10.
    assert coco_scores(Detector(targets, 8.), images, targets) == dict(
        box_AP=pytest.approx(50), box_AP50=100)
    scores = coco_scores(Detector(targets, 40.), images, targets)
    assert scores['box_AP50'] == 0
