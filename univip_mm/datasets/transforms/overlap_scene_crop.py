"""Transform that crops two overlapping scenes and their K instances."""
import random
from collections.abc import Sequence
from typing import NamedTuple, Union

import cv2
import mmcv
import numpy as np
from mmcv.image.geometric import cv2_interp_codes
from mmcv.transforms import BaseTransform

from ...io.boxes import ProposalRules, inside, iou, obeys_shape_rules
from ...io.encoded_image import EncodedImage
from ...registry import TRANSFORMS
from .box_sampling import (
    Box,
    intersect,
    overlap_little,
    sample_boxes,
    sample_crop,
    shorter_side,
)
from .device_cut import uncut_sample, undecoded_sample


class ScenePair(NamedTuple):
    """Two scenes of an image and the proposals inside their overlap."""
    scenes: tuple[Box, Box]
    overlap: Box
    proposals: np.ndarray  # (N, 4) whole numbers, in proposal order


@TRANSFORMS.register_module()
class OverlapSceneCrop(BaseTransform):
    """Transform that crops two overlapping scenes and K instances in both.

    All boxes are sampled before a pixel is read (paper, Sec. 3.1):

    1. Sample pairs of random resized crops, the scenes, until the overlap of
       a pair fully contains K proposals, in at most ``max_attempts`` attempts.
       Otherwise use the pair that contains the most proposals.
    2. Select at most K of the contained proposals as instances.
    3. Fill up to K instances with random boxes inside the overlap that obey
       the three rules (an author's answer to the reproduction, Sec. 2.2.5 of
       its README). Each is the first of ``num_candidates`` boxes that obeys
       the IoU rule, or the box with the lowest IoU if none does.

    An overlap with a side below ``min_size`` does not count. If no attempt
    gives an overlap that counts, both scenes are the whole image. In an image
    smaller than ``min_size``, the random boxes are as large as possible.

    The boxes are a function of ``view_seed``, which
    :class:`ProposalCocoDataset` derives from the run's seed, the epoch and
    the image. Without ``view_seed``, NumPy's global state provides a seed.

    Required keys: ``img``, (H, W, 3) uint8 or an :class:`EncodedImage`, and
    ``proposals`` (N, 4). Optional key: ``view_seed`` (int).
    Modified key: ``img`` becomes the list [scene_1, scene_2, instance_1, ...,
    instance_K] of (size, size, 3) uint8.
    Added keys: ``scene_boxes`` (2, 4), ``overlap_box`` (4,),
    ``instance_boxes`` (K, 4), int64, proposals before random boxes;
    ``num_proposed`` (int), the number of instances that are proposals;
    ``view_seed`` (int). All boxes are xyxy in pixels of the original image,
    x2 and y2 outside.

    Args:
        num_instances (int): Number K of instances per image. Defaults to 4.
        scene_size (int): Side of a scene, pixels. Defaults to 224.
        instance_size (int): Side of an instance, pixels. Defaults to 96.
        max_attempts (int): Largest number of sampled scene pairs. Defaults to
            20.
        min_size (int): Smallest side of an instance and of the overlap,
            pixels. Defaults to 64.
        max_aspect_ratio (float): Largest ratio of an instance's sides.
            Defaults to 3.0.
        iou_thr (float): Largest IoU of two instances. Defaults to 0.5.
        selection (str): Which proposals to select if the overlap contains
            more than K: 'first' in proposal order, or 'random'. Defaults to
            'first'.
        crop_ratio_range (Sequence[float]): Range of a scene's area, as a
            share of the image's area. Defaults to (0.08, 1.0).
        aspect_ratio_range (Sequence[float]): Range of a scene's width divided
            by its height. Defaults to (3/4, 4/3).
        num_candidates (int): Number of random boxes to choose an instance
            from. Defaults to 100.
        interpolation (str): As in :func:`mmcv.imresize`. Defaults to
            'bicubic'.
        backend (str): As in :func:`mmcv.imresize`, 'cv2' or 'pillow'.
            Defaults to 'cv2', the host's default.
        cut (str): Where views are cut and resized: 'worker', or 'device', by
            :class:`UniVIPDataPreprocessor` on the training device, which
            takes less time in the worker. Then ``img`` becomes [the part of
            the image that the views need (h, w, 3), boxes and sizes
            (2 + K, 5)], and the loader needs
            ``collate_fn=dict(type='univip_mm.collate_views')``. One value in
            17,000 differs by one level. Defaults to 'worker'.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(self, num_instances: int = 4, scene_size: int = 224,
                 instance_size: int = 96, max_attempts: int = 20,
                 min_size: int = 64, max_aspect_ratio: float = 3.0,
                 iou_thr: float = 0.5, selection: str = 'first',
                 crop_ratio_range: Sequence[float] = (0.08, 1.0),
                 aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
                 num_candidates: int = 100, interpolation: str = 'bicubic',
                 backend: str = 'cv2', cut: str = 'worker') -> None:
        self.num_instances = _positive('num_instances', num_instances)
        self.scene_size = _positive('scene_size', scene_size)
        self.instance_size = _positive('instance_size', instance_size)
        self.max_attempts = _positive('max_attempts', max_attempts)
        self.num_candidates = _positive('num_candidates', num_candidates)
        self.rules = ProposalRules(min_size, max_aspect_ratio, iou_thr)
        if selection not in ('first', 'random'):
            raise ValueError(f"OverlapSceneCrop: selection is '{selection}', "
                             "but must be 'first' or 'random'")
        self.selection = selection
        self.crop_ratio_range = _range('crop_ratio_range', crop_ratio_range)
        self.aspect_ratio_range = _range('aspect_ratio_range',
                                         aspect_ratio_range)
        if backend == 'cv2' and interpolation not in cv2_interp_codes:
            raise ValueError(
                f"OverlapSceneCrop: interpolation is '{interpolation}', but "
                f'must be one of {", ".join(cv2_interp_codes)}')
        if cut not in ('worker', 'device'):
            raise ValueError(f"OverlapSceneCrop: cut is '{cut}', but must be "
                             "'worker' or 'device'")
        if cut == 'device' and (interpolation, backend) != ('bicubic', 'cv2'):
            raise ValueError(
                "OverlapSceneCrop: cut='device' is bicubic as OpenCV only, "
                f"but interpolation is '{interpolation}' and backend is "
                f"'{backend}': remove these options, or use cut='worker'")
        self.interpolation = interpolation
        self.backend = backend
        self.cut = cut

    def transform(self, results: dict) -> dict:
        """Sample the boxes, then crop the views.

        Raises:
            KeyError: ``results`` has no ``proposals``.
        """
        if 'proposals' not in results:
            raise KeyError(
                "OverlapSceneCrop: the sample has no 'proposals'. They come "
                'from ProposalCocoDataset and its proposal_file')
        image = results['img']
        height, width = image.shape[:2]
        if results.get('view_seed') is None:
            results['view_seed'] = int(np.random.randint(2**63 - 1))
        rng = random.Random(results['view_seed'])

        proposals = self._valid_proposals(results['proposals'])
        pair = self._sample_scene_pair(rng, width, height, proposals)
        instances = self._select_proposals(rng, pair.proposals)
        num_proposed = len(instances)
        while len(instances) < self.num_instances:
            instances.append(
                self._sample_instance(rng, pair.overlap, instances))

        results.update(
            img=self._crop_views(image, pair.scenes, instances),
            scene_boxes=np.array(pair.scenes),
            overlap_box=np.array(pair.overlap),
            instance_boxes=np.array(instances), num_proposed=num_proposed)
        return results

    def _valid_proposals(self, proposals: np.ndarray) -> np.ndarray:
        """Return the boxes (N, 4), whole numbers, that obey the shape rules.

        Boxes outside the image need no check: no overlap contains them.
        """
        boxes = np.asarray(proposals, dtype=np.float64).reshape(-1, 4)
        boxes = np.rint(boxes)
        with np.errstate(invalid='ignore'):  # comparisons with NaN are False
            return boxes[obeys_shape_rules(boxes, self.rules)]

    def _sample_scene_pair(self, rng: random.Random, width: int, height: int,
                           proposals: np.ndarray) -> ScenePair:
        """Sample scenes until their overlap contains K proposals."""
        best, most = None, -1
        ranges = self.crop_ratio_range, self.aspect_ratio_range
        for _ in range(self.max_attempts):
            scenes = (sample_crop(rng, width, height, *ranges),
                      sample_crop(rng, width, height, *ranges))
            overlap = intersect(*scenes)
            if shorter_side(overlap) < self.rules.min_size:
                continue
            contained = proposals[inside(proposals, overlap)]
            if len(contained) > most:
                best = ScenePair(scenes, overlap, contained)
                most = len(contained)
            if most >= self.num_instances:
                break
        if best is None:
            image = (0, 0, width, height)
            best = ScenePair((image, image), image,
                             proposals[inside(proposals, image)])
        return best

    def _select_proposals(self, rng: random.Random,
                          proposals: np.ndarray) -> list[Box]:
        """Select at most K of the proposals that obey the IoU rule."""
        candidates = list(map(tuple, proposals.astype(np.int64).tolist()))
        if self.selection == 'random':
            rng.shuffle(candidates)
        selected = candidates[:self.num_instances]
        # Fast path: boxes of a proposal file already obey the IoU rule.
        if overlap_little(selected, self.rules.iou_thr):
            return selected
        selected = []
        for box in candidates:
            if len(selected) == self.num_instances:
                break
            if (not selected
                    or iou([box], selected).max() <= self.rules.iou_thr):
                selected.append(box)
        return selected

    def _sample_instance(self, rng: random.Random, overlap: Box,
                         instances: list[Box]) -> Box:
        """Sample a random box inside the overlap that obeys the rules."""
        candidates = sample_boxes(
            np.random.default_rng(rng.getrandbits(64)), overlap, self.rules,
            self.num_candidates)
        pick = 0
        if instances:
            max_iou = iou(candidates, instances).max(axis=1)
            allowed = max_iou <= self.rules.iou_thr
            pick = allowed.argmax() if allowed.any() else max_iou.argmin()
        return tuple(candidates[pick].tolist())

    def _crop_views(self, image: Union[np.ndarray, EncodedImage],
                    scenes: Sequence[Box],
                    instances: Sequence[Box]) -> list:
        """Crop and resize the views, scenes before instances.

        With ``cut='device'``, return what the device needs to do this.
        """
        views = [(box, self.scene_size) for box in scenes]
        views += [(box, self.instance_size) for box in instances]
        height, width = image.shape[:2]
        if isinstance(image, EncodedImage):
            file = image.file_for_device() if self.cut == 'device' else None
            if file is not None:
                return undecoded_sample(file, views)
            # Below this scale, a view would be enlarged from too few pixels.
            image = image.decode(
                max(size / shorter_side(box) for box, size in views))
        scale_x, scale_y = image.shape[1] / width, image.shape[0] / height
        if self.cut == 'device':
            return uncut_sample(image, (scale_x, scale_y), views)
        return [
            self._resize(
                image[round(y1 * scale_y):round(y2 * scale_y),
                      round(x1 * scale_x):round(x2 * scale_x)], size)
            for (x1, y1, x2, y2), size in views]

    def _resize(self, crop: np.ndarray, size: int) -> np.ndarray:
        """Resize to (size, size, 3), stored as (3, size, size).

        With this memory layout, the host's ``PackInputs`` makes no copy.
        """
        if self.backend == 'cv2':
            # As mmcv.imresize(), without its overhead.
            view = cv2.resize(
                crop, (size, size),
                interpolation=cv2_interp_codes[self.interpolation])
        else:
            view = mmcv.imresize(crop, (size, size), backend=self.backend,
                                 interpolation=self.interpolation)
        planes = np.empty((3, size, size), np.uint8)
        cv2.split(view, list(planes))
        return planes.transpose(1, 2, 0)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(num_instances={self.num_instances}, '
                f'scene_size={self.scene_size}, '
                f'instance_size={self.instance_size}, '
                f'max_attempts={self.max_attempts}, rules={self.rules}, '
                f"selection='{self.selection}', cut='{self.cut}')")


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f'OverlapSceneCrop: {name} is {value}, but must be '
                         'at least 1')
    return value


def _range(name: str, value: Sequence[float]) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high:
        raise ValueError(f'OverlapSceneCrop: {name} is ({low}, {high}), but '
                         'must be a range (low, high) with 0 < low <= high')
    return low, high
