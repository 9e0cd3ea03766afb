"""Box arithmetic.

Boxes are (N, 4) arrays of xyxy in pixels: x1, y1 is the first pixel inside,
x2, y2 the first pixel outside, so x2 - x1 is the width.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Optional

import cv2
import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ProposalRules:
    """Conditions that a box must meet to serve as an instance.

    Args:
        min_size (int): Smallest width and height, pixels. Defaults to 64.
        max_aspect_ratio (float): Largest ratio of the longer side to the
            shorter side. Defaults to 3.0.
        iou_thr (float): Largest IoU with any box kept before. Defaults to
            0.5.

    Raises:
        ValueError: A value is out of range.
    """
    min_size: int = 64
    max_aspect_ratio: float = 3.0
    iou_thr: float = 0.5

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise ValueError(f'min_size is {self.min_size}, but must be at '
                             'least 1 pixel')
        # A NaN is not in any range, and JSON has no infinity.
        if not 1 <= self.max_aspect_ratio < np.inf:
            raise ValueError(f'max_aspect_ratio is {self.max_aspect_ratio}, '
                             'but must be at least 1 and finite: it is the '
                             'longer side divided by the shorter side')
        if not 0 <= self.iou_thr <= 1:
            raise ValueError(
                f'iou_thr is {self.iou_thr}, but must be in [0, 1]')

    def as_dict(self) -> dict:
        """Return the rules by name, as the proposal file stores them."""
        return asdict(self)


def xywh_to_xyxy(boxes: ArrayLike) -> np.ndarray:
    """Convert (N, 4) boxes from x, y, width, height to xyxy."""
    xywh = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def iou(boxes: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Compute the IoU of (N, 4) boxes with (M, 4) boxes, (N, M) float64."""
    a = np.asarray(boxes, dtype=np.float64)
    b = np.asarray(others, dtype=np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=1)
    union = area_a[:, None] + area_b[None] - intersection
    return intersection / np.maximum(union, np.finfo(np.float64).tiny)


def inside(boxes: np.ndarray, window: Sequence) -> np.ndarray:
    """Return the mask (N,) of the (N, 4) boxes fully inside a (4,) window."""
    x1, y1, x2, y2 = window
    return ((boxes[:, 0] >= x1) & (boxes[:, 1] >= y1)
            & (boxes[:, 2] <= x2) & (boxes[:, 3] <= y2))


def obeys_shape_rules(boxes: np.ndarray, rules: ProposalRules) -> np.ndarray:
    """Return the mask (N,) of the (N, 4) boxes with allowed sides and ratio.

    The IoU rule depends on the other boxes and is not checked.
    """
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    short, long = np.minimum(width, height), np.maximum(width, height)
    return (short >= rules.min_size) & (long <= rules.max_aspect_ratio * short)


def filter_boxes(boxes: np.ndarray, rules: ProposalRules,
                 top_n: Optional[int] = None) -> np.ndarray:
    """Keep the boxes that obey the three rules, without changing their order.

    Args:
        boxes (np.ndarray): (N, 4), in proposal order.
        rules (ProposalRules): The rules.
        top_n (int, optional): Largest number of boxes to keep. No limit by
            default.

    Returns:
        np.ndarray: The kept boxes (M, 4), with the dtype of ``boxes``.
    """
    boxes = boxes[obeys_shape_rules(boxes, rules)]
    if len(boxes) == 0:
        return boxes
    # Non-maximum suppression with the proposal order as the score.
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    scores = list(range(len(boxes), 0, -1))
    # In OpenCV's float32, an IoU equal to the limit can be slightly larger.
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores, 0., rules.iou_thr + 2e-7)
    return boxes[np.ravel(kept)[:top_n]]
