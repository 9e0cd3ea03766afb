"""Statistics of a proposal file, and its recall of annotated boxes."""
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ..io.boxes import iou, xywh_to_xyxy
from ..utils.text import printable
from .proposal_file import ProposalFile


def recall(proposals: Mapping, annotations: Sequence[dict],
           iou_thrs: Sequence[float] = (0.5, 0.7)) -> tuple[int, dict]:
    """Compute the share of annotated boxes that a proposal covers.

    Args:
        proposals (Mapping[int, np.ndarray]): Boxes (N, 4) xyxy by image id.
        annotations (Sequence[dict]): ``annotations`` of a COCO json. Crowds,
            boxes without an area, and images without an entry in
            ``proposals`` do not count.
        iou_thrs (Sequence[float]): Smallest IoUs of a covered box.

    Returns:
        tuple[int, dict]: Number of annotated boxes, and the covered share by
        IoU threshold (NaN without any box).
    """
    by_image = defaultdict(list)
    for annotation in annotations:
        if not annotation.get('iscrowd') and min(annotation['bbox'][2:]) > 0:
            by_image[annotation['image_id']].append(annotation['bbox'])
    best_per_image = [np.zeros(0)]
    for image_id, boxes in by_image.items():
        if image_id in proposals:
            overlaps = iou(xywh_to_xyxy(boxes), proposals[image_id])
            best_per_image.append(overlaps.max(axis=1, initial=0))
    best = np.concatenate(best_per_image)
    return len(best), {
        thr: float((best >= thr).mean()) if len(best) else float('nan')
        for thr in iou_thrs}


def describe(proposals: ProposalFile, num_instances: int) -> list[str]:
    """Return lines of a name and a value that describe a proposal file.

    ``num_instances`` is K; images with fewer boxes are counted.
    """
    lines = []
    for name, value in proposals.meta.items():
        if name in ('unreadable', 'reduced'):
            value = f'{len(value)} images'
            if name == 'reduced':
                value += ', which are large and were searched in a copy'
        elif isinstance(value, dict):
            value = ', '.join(f'{k}={v}' for k, v in value.items())
        lines.append((name, value))
    counts, boxes = proposals.counts(), proposals.boxes
    lines += [('images', len(proposals)), ('boxes', len(boxes))]
    if len(counts):
        few = int((counts < num_instances).sum())
        lines += [('an image has', quantiles(counts)),
                  ('below K', f'{few} images ({few / len(counts):.1%}) have '
                   f'fewer than {num_instances}')]
    if len(boxes):
        sides = (boxes[:, 2:] - boxes[:, :2]).astype(float)
        lines += [('side, pixels', quantiles(np.sqrt(sides.prod(axis=1)))),
                  ('width/height', quantiles(sides[:, 0] / sides[:, 1]))]
    return [printable(f'{name:14}{value}') for name, value in lines]


def quantiles(values: np.ndarray) -> str:
    """Format the smallest, 10 %, median, 90 % and largest value as text."""
    return ('{:.4g} smallest, {:.4g} (10 %), {:.4g} (median), {:.4g} (90 %), '
            '{:.4g} largest').format(*np.quantile(values, (0, .1, .5, .9, 1)))
