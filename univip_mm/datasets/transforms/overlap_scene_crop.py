from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from ...boxes import ProposalRules, iou, obeys_shape_rules
from ...registry import TRANSFORMS


@TRANSFORMS.register_module()
class OverlapSceneCrop(BaseTransform):
    """Two overlapping scenes of an image and K instances in what they share.

    Boxes are chosen before any pixel is touched (paper, Sec. 3.1):

    1. Two random resized crops are drawn whose overlap fully contains K
       proposals, in at most ``max_attempts`` attempts.
    2. Otherwise the attempt whose overlap contains the most is kept, and
       random boxes inside the overlap that obey the three rules fill up the
       K. Each is the first of ``num_candidates`` that obeys the IoU rule, or
       the one with the lowest IoU where none does.
    3. An overlap of less than ``min_size`` on a side is none. Where no
       attempt gives one, both scenes become the whole image, the largest
       window that they can have in common.

    In an overlap smaller than ``min_size``, which only an image smaller than
    that has, the random boxes are as large as it allows.

    Required keys: ``img`` (H, W, 3) uint8 and ``proposals`` (N, 4).
    Modified key: ``img`` becomes the list [scene_1, scene_2, instance_1, ...,
    instance_K] of (size, size, 3) uint8.
    Added keys: ``scene_boxes`` (2, 4), ``overlap_box`` (4,),
    ``instance_boxes`` (K, 4), int64, and ``num_proposed``, how many of the K
    are proposals; those come first. All boxes are xyxy in pixels of the
    original image, x2 and y2 outside.

    Args:
        num_instances (int): Instances K of an image. Defaults to 4.
        scene_size (int): Side of a scene, pixels. Defaults to 224.
        instance_size (int): Side of an instance, pixels. Defaults to 96.
        max_attempts (int): Pairs of crops tried. Defaults to 20.
        min_size (int): Smallest side of an instance and of the overlap,
            pixels. Defaults to 64.
        max_aspect_ratio (float): Largest ratio of an instance's sides.
            Defaults to 3.0.
        iou_thr (float): Largest IoU of two instances. Defaults to 0.5.
        selection (str): Which of more than K contained proposals are taken:
            'first' in proposal order, or 'random'. Defaults to 'first'.
        crop_ratio_range (Sequence[float]): Range of a scene's area, as a
            share of the image's. Defaults to (0.08, 1.0).
        aspect_ratio_range (Sequence[float]): Range of a scene's width over
            height. Defaults to (3/4, 4/3).
        num_candidates (int): Random boxes tried for one place. Defaults to
            100.
        interpolation (str): As in :func:`mmcv.imresize`. Defaults to
            'bicubic'.
        backend (str): As in :func:`mmcv.imresize`, 'cv2' or 'pillow'.
            Defaults to 'cv2', the host's default.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self,
                 num_instances: int = 4,
                 scene_size: int = 224,
                 instance_size: int = 96,
                 max_attempts: int = 20,
                 min_size: int = 64,
                 max_aspect_ratio: float = 3.0,
                 iou_thr: float = 0.5,
                 selection: str = 'first',
                 crop_ratio_range: Sequence[float] = (0.08, 1.0),
                 aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
                 num_candidates: int = 100,
                 interpolation: str = 'bicubic',
                 backend: str = 'cv2') -> None:
        counts = dict(
            num_instances=num_instances,
            scene_size=scene_size,
            instance_size=instance_size,
            max_attempts=max_attempts,
            num_candidates=num_candidates)
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f'OverlapSceneCrop: {name} must be at least '
                                 f'1, but is {value}')
        if selection not in ('first', 'random'):
            raise ValueError("OverlapSceneCrop: selection is 'first' or "
                             f"'random', not '{selection}'")
        for name, (low, high) in dict(
                crop_ratio_range=crop_ratio_range,
                aspect_ratio_range=aspect_ratio_range).items():
            if not 0 < low <= high:
                raise ValueError(f'OverlapSceneCrop: {name} must be a range '
                                 f'above 0, but is ({low}, {high})')
        self.num_instances = num_instances
        self.scene_size = scene_size
        self.instance_size = instance_size
        self.max_attempts = max_attempts
        self.rules = ProposalRules(min_size, max_aspect_ratio, iou_thr)
        self.selection = selection
        self.crop_ratio_range = tuple(crop_ratio_range)
        self.aspect_ratio_range = tuple(aspect_ratio_range)
        self.num_candidates = num_candidates
        self.interpolation = interpolation
        self.backend = backend

    def transform(self, results: dict) -> dict:
        """Choose the boxes, then cut them out of the image.

        Raises:
            KeyError: ``results`` holds no ``proposals``.
        """
        if 'proposals' not in results:
            raise KeyError(
                "OverlapSceneCrop finds no 'proposals' in the sample: they "
                'come from ProposalCocoDataset, with its proposal_file')
        image = results['img']
        height, width = image.shape[:2]
        proposals = self._usable(results['proposals'])
        scenes, overlap, contained = self._choose_scenes(
            width, height, proposals)
        instances = self._choose_proposals(proposals[contained])
        num_proposed = len(instances)
        while len(instances) < self.num_instances:
            instances = np.concatenate(
                [instances, self._random_box(overlap, instances)])

        results['img'] = [
            self._cut(image, box, self.scene_size) for box in scenes
        ] + [self._cut(image, box, self.instance_size) for box in instances]
        results['scene_boxes'] = scenes
        results['overlap_box'] = overlap
        results['instance_boxes'] = instances
        results['num_proposed'] = num_proposed
        return results

    def _usable(self, proposals: np.ndarray) -> np.ndarray:
        """The proposals at whole pixels that obey the rules on their shape,
        (N, 4) int64. Whether they lie inside the image shows later: they have
        to lie inside the overlap."""
        proposals = np.asarray(proposals, dtype=np.float64).reshape(-1, 4)
        with np.errstate(invalid='ignore'):  # NaN and infinity drop out
            good = (np.abs(proposals) < 2**31).all(axis=1)
        boxes = np.round(proposals[good]).astype(np.int64)
        return boxes[obeys_shape_rules(boxes, self.rules)]

    def _choose_scenes(
        self, width: int, height: int, proposals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Two scenes (2, 4), their overlap (4,), and which of the proposals
        it contains (N,), for the first attempt with enough of them, or the
        one with the most. All attempts are drawn at once: they cost next to
        nothing beside one crop."""
        crops = self._random_crops(width, height)
        overlaps = np.concatenate([
            crops[:, :, :2].max(axis=1), crops[:, :, 2:].min(axis=1)
        ], axis=1)  # yapf: disable
        is_overlap = (overlaps[:, 2:] - overlaps[:, :2]
                      >= self.rules.min_size).all(axis=1)
        contained = ((proposals[None, :, :2] >= overlaps[:, None, :2])
                     & (proposals[None, :, 2:] <= overlaps[:, None, 2:])
                     ).all(axis=2)
        counts = contained.sum(axis=1).clip(max=self.num_instances)
        counts[~is_overlap] = -1
        best = counts.argmax()  # the first of the largest
        if is_overlap[best]:
            return crops[best], overlaps[best], contained[best]
        image = np.array([0, 0, width, height])
        inside = ((proposals[:, :2] >= 0)
                  & (proposals[:, 2:] <= image[2:])).all(axis=1)
        return np.stack([image, image]), image, inside

    def _random_crops(self, width: int, height: int) -> np.ndarray:
        """``max_attempts`` pairs of random resized crops, (A, 2, 4).

        As torchvision's RandomResizedCrop: of ten draws of area and ratio the
        first that fits into the image, else the largest centred crop whose
        ratio is allowed.
        """
        shape = (self.max_attempts, 2, 10)
        area = width * height * np.random.uniform(*self.crop_ratio_range,
                                                  shape)
        low, high = self.aspect_ratio_range
        ratio = np.exp(np.random.uniform(np.log(low), np.log(high), shape))
        w = np.round(np.sqrt(area * ratio)).astype(np.int64)
        h = np.round(np.sqrt(area / ratio)).astype(np.int64)
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.argmax(axis=2)[..., None]
        w = np.take_along_axis(w, first, axis=2)[..., 0]
        h = np.take_along_axis(h, first, axis=2)[..., 0]
        x = np.random.randint(0, np.maximum(width - w, 0) + 1)
        y = np.random.randint(0, np.maximum(height - h, 0) + 1)

        none_fits = ~fits.any(axis=2)
        if none_fits.any():
            centre_w = min(width, max(1, round(height * high)))
            centre_h = min(height, max(1, round(width / low)))
            w[none_fits], h[none_fits] = centre_w, centre_h
            x[none_fits] = (width - centre_w) // 2
            y[none_fits] = (height - centre_h) // 2
        return np.stack([x, y, x + w, y + h], axis=2)

    def _choose_proposals(self, contained: np.ndarray) -> np.ndarray:
        """At most K of the contained proposals that obey the IoU rule."""
        if self.selection == 'random':
            contained = np.random.permutation(contained)
        chosen = contained[:0]
        for box in contained:
            if len(chosen) == self.num_instances:
                break
            if (iou(box[None], chosen) <= self.rules.iou_thr).all():
                chosen = np.concatenate([chosen, box[None]])
        return chosen

    def _random_box(self, overlap: np.ndarray,
                    chosen: np.ndarray) -> np.ndarray:
        """A random box (1, 4) inside the overlap, apart from the chosen."""
        candidates = _random_boxes(overlap, self.rules, self.num_candidates)
        if len(chosen) == 0:
            return candidates[:1]
        largest_iou = iou(candidates, chosen).max(axis=1)
        obeys = largest_iou <= self.rules.iou_thr
        pick = obeys.argmax() if obeys.any() else largest_iou.argmin()
        return candidates[pick:pick + 1]

    def _cut(self, image: np.ndarray, box: np.ndarray,
             size: int) -> np.ndarray:
        x1, y1, x2, y2 = box
        return mmcv.imresize(
            image[y1:y2, x1:x2], (size, size),
            interpolation=self.interpolation,
            backend=self.backend)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(num_instances={self.num_instances}, '
                f'scene_size={self.scene_size}, '
                f'instance_size={self.instance_size}, '
                f'max_attempts={self.max_attempts}, rules={self.rules}, '
                f"selection='{self.selection}')")


def _random_boxes(window: np.ndarray, rules: ProposalRules,
                  number: int) -> np.ndarray:
    """Random boxes (number, 4) inside the window (4,) that obey the rules on
    sides and ratio, as far as the window is large enough for that. The width
    is uniform, then the height among those it allows, then the place."""
    width, height = window[2:] - window[:2]
    r = rules.max_aspect_ratio
    # A width for which some height is allowed, then such a height.
    w_high = min(width, int(r * height))
    w = np.random.randint(min(rules.min_size, w_high), w_high + 1, number)
    h_low = min(rules.min_size, height)
    low = np.maximum(h_low, np.ceil(w / r)).astype(np.int64)
    high = np.minimum(height, np.floor(w * r)).astype(np.int64)
    h = np.random.randint(np.minimum(low, high), high + 1)
    x = window[0] + np.random.randint(0, width - w + 1)
    y = window[1] + np.random.randint(0, height - h + 1)
    return np.stack([x, y, x + w, y + h], axis=1)
