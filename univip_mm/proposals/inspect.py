"""What is in a proposal file, and how much of the annotated it covers."""
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ..io.boxes import iou, xywh_to_xyxy


def recall(proposals: Mapping, annotations: Sequence[dict],
           iou_thrs: Sequence[float] = (0.5, 0.7)) -> tuple[int, dict]:
    """The share of the annotated boxes that a proposal covers.

    Args:
        proposals (Mapping[int, np.ndarray]): Image id to its boxes (N, 4),
            xyxy.
        annotations (Sequence[dict]): Of a COCO json; crowds do not count, nor
            do boxes without an area and images that ``proposals`` lacks.
        iou_thrs (Sequence[float]): IoU from which a box is covered.

    Returns:
        tuple[int, dict]: The number of annotated boxes, and the share covered
        by IoU threshold (NaN where there is no box).
    """
    by_image = defaultdict(list)
    for annotation in annotations:
        if not annotation.get('iscrowd') and min(annotation['bbox'][2:]) > 0:
            by_image[annotation['image_id']].append(annotation['bbox'])
    best = [np.zeros(0)]
    for image_id, boxes in by_image.items():
        if image_id in proposals:
            overlaps = iou(xywh_to_xyxy(boxes), proposals[image_id])
            best.append(overlaps.max(axis=1, initial=0))
    best = np.concatenate(best)
    shares = {
        thr: float((best >= thr).mean()) if len(best) else float('nan')
        for thr in iou_thrs
    }
    return len(best), shares


def quantiles(values: np.ndarray) -> str:
    """Smallest, 10 %, median, 90 % and largest of some numbers, as text."""
    low, ten, median, ninety, high = np.quantile(values,
                                                 (0, 0.1, 0.5, 0.9, 1))
    return (f'{low:.4g} smallest, {ten:.4g} (10 %), {median:.4g} (median), '
            f'{ninety:.4g} (90 %), {high:.4g} largest')
