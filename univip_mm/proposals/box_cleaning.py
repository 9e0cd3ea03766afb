"""Conversion of boxes from other sources to whole pixels inside the image."""
from dataclasses import astuple, dataclass
from operator import add

import numpy as np


@dataclass
class Counts:
    """Numbers of boxes that were read, dropped and clipped."""
    read: int = 0
    not_finite: int = 0  # dropped: NaN or infinity
    empty: int = 0  # dropped: a zero or negative side
    outside: int = 0  # dropped: no pixel inside the image
    clipped: int = 0  # at the border of the image

    def __add__(self, other: 'Counts') -> 'Counts':
        return Counts(*map(add, astuple(self), astuple(other)))


def clean_boxes(boxes: np.ndarray, width: int, height: int,
                counts: Counts) -> np.ndarray:
    """Round boxes to whole pixels, clip them, and drop invalid boxes.

    Args:
        boxes (np.ndarray): (N, 4) x, y, width, height, with any values.
        width (int): Width of the image, pixels.
        height (int): Height of the image, pixels.
        counts (Counts): Updated with the numbers of these boxes.

    Returns:
        np.ndarray: (M, 4) int32, xyxy in pixels, x2 and y2 outside.
    """
    counts.read += len(boxes)
    finite = np.isfinite(boxes.sum(axis=1))
    counts.not_finite += len(boxes) - _count(finite)
    # The clip keeps values in the range of int32; no image is that large.
    # Columns are several times as fast as rows of four.
    x, y, w, h = boxes[finite].clip(-1e6, 1e6).T
    x1, x2 = (np.round(v).astype(np.int32) for v in (x, x + w))
    y1, y2 = (np.round(v).astype(np.int32) for v in (y, y + h))
    full = (w > 0) & (h > 0) & (x2 > x1) & (y2 > y1)
    counts.empty += len(full) - _count(full)
    inside = full & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
    counts.outside += _count(full) - _count(inside)
    rounded = np.stack([x1, y1, x2, y2], axis=1)[inside]
    clipped = np.stack([x1.clip(0), y1.clip(0), x2.clip(max=width),
                        y2.clip(max=height)], axis=1)[inside]
    counts.clipped += _count((clipped != rounded).any(axis=1))
    return clipped


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))
