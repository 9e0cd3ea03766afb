import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from experiments.byol_comparison.evaluate import (
    effective_rank,
    estimate_bn_statistics,
    load_split,
    measure,
    pooled_features,
)


class Preprocessor(nn.Module):
    mean, std = torch.tensor(100.), torch.tensor(50.)


class Backbone(nn.Sequential):
    """BN of three channels."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d(3))

    def forward(self, x):
        return (super().forward(x), )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """12 red images with a green object of class 7, and 12 blue images with a
    white object of class 9."""
    root = tmp_path_factory.mktemp('coco')
    images, annotations = [], []
    for i in range(24):
        pixels = np.zeros((60, 80, 3), np.uint8)
        pixels[..., 0 if i < 12 else 2] = 200
        pixels[10:40, 20:60] = (0, 220, 0) if i < 12 else (240, 240, 240)
        Image.fromarray(pixels).save(root / f'{i}.png')
        images.append(dict(id=i, file_name=f'{i}.png'))
        annotations.append(dict(id=i, image_id=i, bbox=[20, 10, 40, 30],
                           category_id=7 if i < 12 else 9))
    (root / 'all.json').write_text(json.dumps(dict(
        images=images, annotations=annotations,
        categories=[dict(id=9, name='b'), dict(id=7, name='a')])))
    return root


def read(folder, max_objects=100, **options):
    return load_split(
        folder / 'all.json', folder, (40, 30), 16, max_objects, **options)


def test_load_split_returns_images_and_objects(folder):
    split = read(folder)
    assert split.images.shape == (24, 3, 30, 40)
    assert split.objects.shape == (24, 3, 16, 16)
    assert split.labels.tolist() == [[True, False]] * 12 + [[False, True]] * 12
    assert split.classes.tolist() == [0] * 12 + [1] * 12
    # RGB; objects have no background.
    assert split.images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert (split.objects[0].flatten(1).float().mean(1).tolist() ==
            [0, 220, 0])


def test_load_split_limits_objects(folder):
    split = read(folder, max_objects=5)
    assert len(split.objects) == len(split.classes) == 5
    assert len(split.images) == 24


def test_load_split_limits_images(folder):
    split = read(folder, max_images=7)
    assert len(split.images) == len(split.labels) == len(split.objects) == 7


def test_load_split_skips_tiny_objects(folder, tmp_path):
    content = json.loads((folder / 'all.json').read_text())
    content['annotations'][0]['bbox'] = [20, 10, 0.3, 30]
    (tmp_path / 'all.json').write_text(json.dumps(content))
    split = load_split(tmp_path / 'all.json', folder, (40, 30), 16, 5)
    assert len(split.objects) == 5 and split.labels[0].any()


@pytest.mark.parametrize('box', [[90, 0, 20, 20], [0, -30, 20, 20]])
def test_load_split_names_a_box_outside(folder, tmp_path, box):
    content = json.loads((folder / 'all.json').read_text())
    content['annotations'][0]['bbox'] = box
    (tmp_path / 'all.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='image id 0 the bbox .* outside'):
        load_split(tmp_path / 'all.json', folder, (40, 30), 16, 5)


def test_measure_ignores_absent_classes(folder):
    split = read(folder)
    first = split._replace(
        labels=np.column_stack([split.labels, np.zeros(24, bool)]))
    assert measure(Backbone(), Preprocessor(), first,
                   first)['linear_mAP'] == 100


def test_load_split_names_missing_image(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='0.png'):
        load_split(folder / 'all.json', tmp_path, (40, 30), 16, 5)


def test_pooled_features_are_spatial_means(folder):
    images = read(folder).images
    features = pooled_features(Backbone().eval(), images, Preprocessor())
    by_hand = ((images.double() - 100) / 50).mean((2, 3))
    assert torch.allclose(features.double(), by_hand, atol=1e-3)


def test_bn_statistics_match_the_images(folder):
    images = read(folder).images
    backbone = Backbone()
    backbone[0].running_mean.fill_(7)
    estimate_bn_statistics(backbone, images, Preprocessor())
    by_hand = ((images.double() - 100) / 50).mean((0, 2, 3))
    assert torch.allclose(backbone[0].running_mean.double(), by_hand,
                          atol=1e-3)
    assert not backbone.training


def test_measure_scores_perfect_and_blind_features(folder):
    split = read(folder)
    scores = measure(Backbone(), Preprocessor(), split, split)
    rank = scores.pop('rank')
    assert scores == dict(linear_mAP=100, object_linear=100, object_knn=100)
    assert 1 <= rank <= 3
    blind = copy.deepcopy(split)._replace(
        images=torch.zeros_like(split.images),
        objects=torch.zeros_like(split.objects))
    scores = measure(Backbone(), Preprocessor(), blind, blind)
    assert scores['linear_mAP'] == scores['object_linear'] == 50


def test_effective_rank_counts_directions():
    torch.manual_seed(0)
    maps = torch.randn(50, 6, 20, 20)
    assert effective_rank(maps) == pytest.approx(6, abs=0.01)
    mixed = torch.randn(6, 6)
    mixed[:, 2:] = 0  # rank 2
    assert 1 < effective_rank(
        torch.einsum('ij,njhw->nihw', mixed, maps)) <= 2 + 1e-6
    assert effective_rank(maps[:, :1].expand(-1, 6, -1, -1)) == (
        pytest.approx(1, abs=1e-3))
