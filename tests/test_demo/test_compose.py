from collections import Counter

import cv2
import numpy as np
import pytest

from univip_mm.demo import CLASSES, make_scene
from univip_mm.demo.compose import MIN_BOX_SIDE, MIN_OBJECTS


@pytest.fixture(scope='module')
def scenes():
    return [make_scene(np.random.default_rng([7, i])) for i in range(40)]


def test_boxes_are_tight_to_disjoint_masks(scenes):
    for image, objects in scenes:
        assert image.shape == (240, 320, 3) and image.dtype == np.uint8
        assert np.sum([x.mask for x in objects], axis=0).max() == 1
        for x in objects:
            rows, columns = np.nonzero(x.mask)
            assert x.bbox.tolist() == [
                columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_objects_have_minimum_number_and_size(scenes):
    smallest = MIN_BOX_SIDE * 240
    sides = []
    for _, objects in scenes:
        assert len(objects) >= MIN_OBJECTS
        for x in objects:
            assert x.mask.sum() >= smallest**2 / 2
            sides.extend(x.bbox[2:] - x.bbox[:2])
    assert min(sides) >= smallest
    low, high = np.quantile(sides, [0.1, 0.9])
    assert low > 32 and high < 150


def test_classes_are_about_equally_frequent(scenes):
    images = Counter(
        name for _, objects in scenes for name in {x.name for x in objects})
    assert set(images) == set(CLASSES) and len(CLASSES) >= 8
    share = np.array(list(images.values())) / len(scenes)
    assert share.min() > 0.02 and share.max() < 0.4


def test_images_contain_one_to_three_classes(scenes):
    numbers = [len({x.name for x in objects}) for _, objects in scenes]
    assert set(numbers) == {1, 2, 3}


def test_masks_differ_from_their_surroundings(scenes):
    # A mask can be consistent although its object was never drawn.
    differences = []
    for image, objects in scenes:
        for x in objects:
            mask = x.mask.astype(np.uint8)
            ring = cv2.dilate(mask, np.ones((9, 9), np.uint8)) - mask
            inside, outside = (
                np.array(cv2.meanStdDev(image, mask=part))
                for part in (mask, ring))
            differences.append(np.abs(inside - outside).max())
    assert np.quantile(differences, 0.02) > 15
