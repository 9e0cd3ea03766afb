"""Random crops of an image and random boxes inside a window."""
import math
import random
from itertools import combinations

import numpy as np

from ...io.boxes import ProposalRules

Box = tuple[int, int, int, int]


def sample_crop(rng: random.Random, width: int, height: int,
                area_range: tuple[float, float],
                ratio_range: tuple[float, float]) -> Box:
    """Sample the box of a random resized crop, as torchvision does.

    The crop is the first of ten samples that fits into the image. Otherwise
    it is the largest centered crop with an allowed aspect ratio.
    ``area_range`` is a share of the image's area; ``ratio_range`` is the
    crop's width divided by its height.
    """
    low, high = ratio_range
    log_low, log_high = math.log(low), math.log(high)
    for _ in range(10):
        area = width * height * rng.uniform(*area_range)
        ratio = math.exp(rng.uniform(log_low, log_high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = rng.randrange(width - w + 1), rng.randrange(height - h + 1)
            return x, y, x + w, y + h
    w = min(width, max(1, round(height * high)))
    h = min(height, max(1, round(width / low)))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def intersect(a: Box, b: Box) -> Box:
    """Return the intersection of two boxes; its sides may be negative."""
    return (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]),
            min(a[3], b[3]))


def overlap_little(boxes: list[Box], iou_thr: float) -> bool:
    """Return True if no two of a few boxes have an IoU above ``iou_thr``.

    Without NumPy, this takes a tenth of the time for four boxes.
    """
    for a, b in combinations(boxes, 2):
        x1, y1, x2, y2 = intersect(a, b)
        if x1 < x2 and y1 < y2:
            common = (x2 - x1) * (y2 - y1)
            if common / (_area(a) + _area(b) - common) > iou_thr:
                return False
    return True


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def shorter_side(box: Box) -> int:
    """Return the smaller of the width and the height of a box."""
    return min(box[2] - box[0], box[3] - box[1])


def sample_boxes(rng: np.random.Generator, window: Box, rules: ProposalRules,
                 number: int) -> np.ndarray:
    """Sample random boxes that obey the shape rules, inside a window.

    In a window that is too small for the rules, the boxes are as large as the
    window allows. The width is uniform, then the height among the heights
    that the width allows, then the position.

    Returns:
        np.ndarray: The boxes (number, 4) int64, xyxy.
    """
    width, height = window[2] - window[0], window[3] - window[1]
    ratio = rules.max_aspect_ratio
    # Wider boxes would need more height than the window has.
    w_high = min(width, int(ratio * height))
    w = rng.integers(min(rules.min_size, w_high), w_high + 1, number)
    h_min = min(rules.min_size, height)
    h_low = np.maximum(h_min, np.ceil(w / ratio)).astype(np.int64)
    h_high = np.minimum(height, np.floor(w * ratio)).astype(np.int64)
    h = rng.integers(np.minimum(h_low, h_high), h_high + 1)
    x = window[0] + rng.integers(0, width - w + 1)
    y = window[1] + rng.integers(0, height - h + 1)
    return np.stack([x, y, x + w, y + h], axis=1)
