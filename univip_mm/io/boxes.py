"""Box arithmetic. Boxes are (N, 4) arrays of xyxy in pixels: x1, y1 is the
first pixel inside, x2, y2 the first one outside, so x2 - x1 is the width."""
from dataclasses import asdict, dataclass
from typing import Optional

import cv2
import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ProposalRules:
    """What a box must be to serve as an instance (method, "Views", 1).

    Args:
        min_size (int): Smallest width and height, pixels.
        max_aspect_ratio (float): Largest ratio of the longer side to the
            shorter one.
        iou_thr (float): Largest IoU with any box kept before it.

    Raises:
        ValueError: A value is out of its range.
    """
    min_size: int = 64
    max_aspect_ratio: float = 3.0
    iou_thr: float = 0.5

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise ValueError(f'min_size is {self.min_size}, but a box has at '
                             'least 1 pixel a side')
        if self.max_aspect_ratio < 1:
            raise ValueError(f'max_aspect_ratio is {self.max_aspect_ratio}, '
                             'but the longer side over the shorter one is at '
                             'least 1')
        if not 0 <= self.iou_thr <= 1:
            raise ValueError(f'iou_thr is {self.iou_thr}, but an IoU lies in '
                             '[0, 1]')

    def as_dict(self) -> dict:
        return asdict(self)


def xywh_to_xyxy(boxes: ArrayLike) -> np.ndarray:
    """(N, 4) x, y, width, height, to (N, 4) xyxy."""
    xywh = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def iou(boxes: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Intersection over union of (N, 4) with (M, 4), as (N, M) float64."""
    a = np.asarray(boxes, dtype=np.float64)
    b = np.asarray(others, dtype=np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=1)
    union = area_a[:, None] + area_b[None] - intersection
    return intersection / np.maximum(union, np.finfo(np.float64).tiny)


def obeys_shape_rules(boxes: np.ndarray, rules: ProposalRules) -> np.ndarray:
    """Which of the (N, 4) boxes obey the rules on sides and ratio, (N,)."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    short, long = np.minimum(width, height), np.maximum(width, height)
    return (short >= rules.min_size) & (long <= rules.max_aspect_ratio * short)


def filter_boxes(boxes: np.ndarray,
                 rules: ProposalRules,
                 top_n: Optional[int] = None) -> np.ndarray:
    """Keep the boxes that obey the three rules, in their order.

    Args:
        boxes (np.ndarray): (N, 4), in proposal order.
        rules (ProposalRules): The rules.
        top_n (int, optional): Stop after that many. Defaults to None, all.

    Returns:
        np.ndarray: Those kept, (M, 4), of the same dtype.
    """
    boxes = boxes[obeys_shape_rules(boxes, rules)]
    if len(boxes) == 0:
        return boxes
    # Non-maximum suppression, with the place in the order for a score.
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    scores = list(range(len(boxes), 0, -1))
    # In float32, where an IoU equal to the limit may come out a little larger.
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores, 0., rules.iou_thr + 2e-7)
    return boxes[np.ravel(kept)[:top_n]]
