import math
import random
from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from ...io.boxes import ProposalRules, iou, obeys_shape_rules
from ...registry import TRANSFORMS
from .load_encoded_image import EncodedImage

Box = tuple[int, int, int, int]


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

    The draw is a function of ``view_seed``, which
    :class:`ProposalCocoDataset` makes from the run's seed, the epoch and the
    image. Without one, it is drawn from NumPy's global state.

    Required keys: ``img``, (H, W, 3) uint8 or what :class:`LoadEncodedImage`
    gives, and ``proposals`` (N, 4). Optional key: ``view_seed`` (int).
    Modified key: ``img`` becomes the list [scene_1, scene_2, instance_1, ...,
    instance_K] of (size, size, 3) uint8, whose memory is ordered by channel,
    as the host's ``PackInputs`` then needs no copy.
    Added keys: ``scene_boxes`` (2, 4), ``overlap_box`` (4,),
    ``instance_boxes`` (K, 4), int64, and ``num_proposed``, how many of the K
    are proposals; those come first; ``view_seed``. All boxes are xyxy in
    pixels of the original image, x2 and y2 outside.

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
        seed = results.get('view_seed')
        if seed is None:
            seed = results['view_seed'] = int(np.random.randint(2**63 - 1))
        rng = random.Random(seed)

        proposals = self._usable(results['proposals'])
        scenes, overlap, contained = self._choose_scenes(
            rng, width, height, proposals)
        instances = self._choose_proposals(rng, contained)
        num_proposed = len(instances)
        while len(instances) < self.num_instances:
            instances.append(self._random_box(rng, overlap, instances))

        sizes = [self.scene_size] * 2 + [self.instance_size] * len(instances)
        results['img'] = self._cut(image, [*scenes, *instances], sizes)
        results['scene_boxes'] = np.array(scenes)
        results['overlap_box'] = np.array(overlap)
        results['instance_boxes'] = np.array(instances)
        results['num_proposed'] = num_proposed
        return results

    def _usable(self, proposals: np.ndarray) -> np.ndarray:
        """The proposals at whole pixels that obey the rules on their shape,
        (N, 4) int64. Whether they lie inside the image shows later: they have
        to lie inside the overlap."""
        proposals = np.asarray(proposals, dtype=np.float64).reshape(-1, 4)
        with np.errstate(invalid='ignore'):  # NaN and infinity drop out
            good = (np.abs(proposals) < 2**31).all(axis=1)
        boxes = np.rint(proposals[good]).astype(np.int64)
        return boxes[obeys_shape_rules(boxes, self.rules)]

    def _choose_scenes(
        self, rng: random.Random, width: int, height: int,
        proposals: np.ndarray
    ) -> tuple[tuple[Box, Box], Box, np.ndarray]:
        """Two scenes, their overlap, and the proposals that it contains
        (N, 4), of the first attempt with enough of them, or of the first one
        with the most."""
        best, most = None, -1
        for _ in range(self.max_attempts):
            scenes = (self._random_crop(rng, width, height),
                      self._random_crop(rng, width, height))
            (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = scenes
            overlap = (max(ax1, bx1), max(ay1, by1), min(ax2, bx2),
                       min(ay2, by2))
            if min(overlap[2] - overlap[0],
                   overlap[3] - overlap[1]) < self.rules.min_size:
                continue
            contained = _contained(proposals, overlap)
            count = min(int(np.count_nonzero(contained)), self.num_instances)
            if count > most:
                best, most = (scenes, overlap, contained), count
            if most == self.num_instances:
                break
        if best is None:
            image = (0, 0, width, height)
            best = (image, image), image, _contained(proposals, image)
        scenes, overlap, contained = best
        return scenes, overlap, proposals[contained]

    def _random_crop(self, rng: random.Random, width: int,
                     height: int) -> Box:
        """A random resized crop as torchvision's: of ten draws of area and
        ratio the first that fits into the image, else the largest centred
        crop whose ratio is allowed."""
        low, high = self.aspect_ratio_range
        for _ in range(10):
            area = width * height * rng.uniform(*self.crop_ratio_range)
            ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
            w = round(math.sqrt(area * ratio))
            h = round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                x = rng.randint(0, width - w)
                y = rng.randint(0, height - h)
                return x, y, x + w, y + h
        w = min(width, max(1, round(height * high)))
        h = min(height, max(1, round(width / low)))
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h

    def _choose_proposals(self, rng: random.Random,
                          contained: np.ndarray) -> list[Box]:
        """At most K of the contained proposals that obey the IoU rule."""
        candidates = [tuple(box) for box in contained.tolist()]
        if self.selection == 'random':
            rng.shuffle(candidates)
        chosen = candidates[:self.num_instances]
        if len(chosen) > 1 and np.triu(iou(chosen, chosen),
                                       1).max() <= self.rules.iou_thr:
            return chosen  # as always with a proposal file
        chosen = []
        for box in candidates:
            if len(chosen) == self.num_instances:
                break
            if not chosen or iou([box], chosen).max() <= self.rules.iou_thr:
                chosen.append(box)
        return chosen

    def _random_box(self, rng: random.Random, overlap: Box,
                    chosen: list[Box]) -> Box:
        """A random box inside the overlap, apart from the chosen."""
        candidates = _random_boxes(
            np.random.default_rng(rng.getrandbits(64)), overlap, self.rules,
            self.num_candidates)
        pick = 0
        if chosen:
            largest_iou = iou(candidates, chosen).max(axis=1)
            obeys = largest_iou <= self.rules.iou_thr
            pick = obeys.argmax() if obeys.any() else largest_iou.argmin()
        return tuple(candidates[pick].tolist())

    def _cut(self, image: np.ndarray, boxes: list[Box],
             sizes: list[int]) -> list[np.ndarray]:
        """Each box of the image, resized to (size, size)."""
        scale_x = scale_y = 1.
        if isinstance(image, EncodedImage):
            height, width = image.shape[:2]
            # The scale at which no view has fewer pixels than it needs.
            image = image.decode(
                max(size / min(x2 - x1, y2 - y1)
                    for (x1, y1, x2, y2), size in zip(boxes, sizes)))
            scale_x = image.shape[1] / width
            scale_y = image.shape[0] / height
        views = []
        for (x1, y1, x2, y2), size in zip(boxes, sizes):
            crop = image[round(y1 * scale_y):round(y2 * scale_y),
                         round(x1 * scale_x):round(x2 * scale_x)]
            view = mmcv.imresize(
                crop, (size, size),
                interpolation=self.interpolation,
                backend=self.backend)
            planes = np.empty((3, size, size), np.uint8)
            cv2.split(view, list(planes))
            views.append(planes.transpose(1, 2, 0))
        return views

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(num_instances={self.num_instances}, '
                f'scene_size={self.scene_size}, '
                f'instance_size={self.instance_size}, '
                f'max_attempts={self.max_attempts}, rules={self.rules}, '
                f"selection='{self.selection}')")


def _contained(boxes: np.ndarray, window: Box) -> np.ndarray:
    """Which of the boxes (N, 4) lie inside the window, (N,) bool."""
    x1, y1, x2, y2 = window
    return ((boxes[:, 0] >= x1) & (boxes[:, 1] >= y1)
            & (boxes[:, 2] <= x2) & (boxes[:, 3] <= y2))


def _random_boxes(rng: np.random.Generator, window: Box,
                  rules: ProposalRules, number: int) -> np.ndarray:
    """Random boxes (number, 4) inside the window that obey the rules on sides
    and ratio, as far as the window is large enough for that. The width is
    uniform, then the height among those it allows, then the place."""
    width, height = window[2] - window[0], window[3] - window[1]
    r = rules.max_aspect_ratio
    # A width for which some height is allowed, then such a height.
    w_high = min(width, int(r * height))
    w = rng.integers(min(rules.min_size, w_high), w_high + 1, number)
    h_low = min(rules.min_size, height)
    low = np.maximum(h_low, np.ceil(w / r)).astype(np.int64)
    high = np.minimum(height, np.floor(w * r)).astype(np.int64)
    h = rng.integers(np.minimum(low, high), high + 1)
    x = window[0] + rng.integers(0, width - w + 1)
    y = window[1] + rng.integers(0, height - h + 1)
    return np.stack([x, y, x + w, y + h], axis=1)
