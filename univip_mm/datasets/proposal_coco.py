import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..io.coco_json import read_coco
from ..io.images import (
    REASONS,
    TOO_SMALL,
    NoReadableImageError,
    UnreadableImageError,
    reason_of,
)
from ..proposals import ProposalFile
from ..registry import DATASETS
from .transforms import LoadEncodedImage

Paths = Union[str, Sequence[str]]
LOADERS = (LoadImageFromFile, LoadEncodedImage)
MAX_FAILURES = 50  # images in a row that are skipped


@DATASETS.register_module()
class ProposalCocoDataset(BaseDataset):
    """The images of one or more COCO jsons, each with its proposals.

    Annotations are not looked at: the json is needed for the list of images.
    ``ann_file``, ``proposal_file`` and ``data_prefix['img_path']`` take lists
    of the same length to join several data sets, as COCO+ does. An image is
    matched with its proposals by its id.

    Images with a side below ``min_image_size`` are dropped and counted in the
    log, going by the json's ``width`` and ``height``, which nothing else is
    taken from: it does not matter whether they are those before or after the
    EXIF turns the image. One that cannot be read, or turns out to be that
    small, is replaced by a random other one and noted (see :attr:`skipped`).

    A sample holds ``img_path``, ``img_id``, ``sample_idx``, and ``proposals``
    (N, 4) float32, xyxy in pixels of the image as its EXIF turns it, x2
    and y2 outside; N may be 0. Where :meth:`set_epoch` was called, as
    :class:`EpochSampler` does, it also holds ``view_seed``, a function of the
    seed, the epoch and the image.

    Args:
        ann_file (str or Sequence[str]): COCO json, below ``data_root``.
        proposal_file (str or Sequence[str]): Proposal file of each json,
            below ``data_root``.
        data_root (str): Folder of the data set. Defaults to ''.
        data_prefix (dict): ``img_path`` is the folder of the images, below
            ``data_root``. Defaults to ``dict(img_path='')``.
        pipeline (Sequence): Transforms. The rules of an ``OverlapSceneCrop``
            among them must be those that the proposals were made with.
            Defaults to ().
        min_image_size (int): Smallest side of an image, pixels. Defaults to
            64.
        **kwargs: For :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The lists have different lengths; a file is not what it
            should be; the proposals are of other images, or made with other
            rules; no image is large enough.
    """

    ann_file: Paths

    def __init__(self,
                 ann_file: Paths,
                 proposal_file: Paths,
                 data_root: str = '',
                 data_prefix: Optional[dict] = None,
                 pipeline: Sequence = (),
                 min_image_size: int = 64,
                 **kwargs) -> None:
        self.proposal_file = proposal_file
        self.min_image_size = min_image_size
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            pipeline=list(pipeline),
            **kwargs)

    def _join_prefix(self) -> None:
        """Join every path with ``data_root``; one path becomes a list of
        one."""
        parts = dict(
            ann_file=_as_list(self.ann_file),
            proposal_file=_as_list(self.proposal_file),
            img_path=_as_list(self.data_prefix.get('img_path', '')))
        lengths = {name: len(paths) for name, paths in parts.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                'ProposalCocoDataset joins data sets that each have an '
                'ann_file, a proposal_file and a data_prefix.img_path, but '
                f'got {lengths}: give lists of the same length')
        root = self.data_root or ''
        joined = {
            name: [os.path.join(root, path) for path in paths]
            for name, paths in parts.items()
        }
        self.ann_file = joined['ann_file']
        self.proposal_file = joined['proposal_file']
        self.data_prefix['img_path'] = joined['img_path']

    def load_data_list(self) -> list:
        """The images of all jsons, without the small ones."""
        self._proposals = []
        data_list = []
        for source, (ann_file, proposal_file, prefix) in enumerate(
                zip(self.ann_file, self.proposal_file,
                    self.data_prefix['img_path'])):
            images = read_coco(ann_file)['images']
            proposals = ProposalFile(proposal_file)
            self._check_images(images, ann_file, proposals)
            self._check_rules(proposals)
            self._proposals.append(proposals)
            data_list += [
                dict(
                    img_path=os.path.join(prefix, image['file_name']),
                    img_id=image['id'],
                    source=source) for image in images
                if self._is_large_enough(image)
            ]
            self._log_what_is_dropped(images, ann_file)
            self._check_folder(prefix, images)
        if not data_list:
            raise ValueError(
                f'no image of {self.ann_file} has both sides of at least '
                f'{self.min_image_size} pixels: lower min_image_size')
        self._failures = 0  # in a row
        self._seed_of_failure = None
        # Seed and epoch; workers that are kept have to see the new epoch.
        self._epoch = torch.full((2, ), -1).share_memory_()
        self._skipped = torch.zeros(
            len(data_list), dtype=torch.uint8).share_memory_()
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """The sample ``idx`` before the pipeline, with its proposals."""
        info = super().get_data_info(idx)
        source = info.pop('source')
        proposals = self._proposals[source][info['img_id']]
        info['proposals'] = np.array(proposals, dtype=np.float32)
        seed, epoch = self._epoch.tolist()
        if epoch >= 0:
            info['view_seed'] = _seed_of(seed, epoch, source, info['img_id'])
        return info

    def set_epoch(self, seed: int, epoch: int) -> None:
        """From now on, in all worker processes too, the views are those of
        this seed and epoch."""
        self._epoch[0], self._epoch[1] = seed, epoch

    def prepare_data(self, idx: int) -> Optional[dict]:
        """The sample ``idx`` after the pipeline, or None where its image
        cannot be read or is too small, whereupon the base class takes another
        one.

        Raises:
            NoReadableImageError: Too many in a row.
        """
        results = self.get_data_info(idx)
        for transform in self.pipeline.transforms:
            try:
                results = transform(results)
            except Exception as e:
                if not isinstance(transform, LOADERS) and (
                        not isinstance(e, UnreadableImageError)):
                    raise
                self._skip(idx, results, reason_of(e), e)
                return None
            if results is None:
                return None
            if isinstance(transform, LOADERS) and min(
                    results['img'].shape[:2]) < self.min_image_size:
                self._skip(idx, results, TOO_SMALL)
                return None
        self._failures = 0
        return results

    def _rand_another(self) -> int:
        """Which image takes the place of one that cannot be read."""
        if self._seed_of_failure is None:
            return super()._rand_another()
        rng = np.random.default_rng([self._seed_of_failure, self._failures])
        return int(rng.integers(len(self)))

    @property
    def skipped(self) -> torch.Tensor:
        """Which images were skipped so far and why, (len(self),) uint8,
        shared by all worker processes: 0, or the place in
        ``univip_mm.io.images.REASONS`` from 1."""
        return self._skipped

    def _skip(self, idx: int, results: dict, reason: str,
              error: Optional[Exception] = None) -> None:
        self._seed_of_failure = results.get('view_seed')
        path, code = results['img_path'], 1 + REASONS.index(reason)
        self._failures += 1
        if self._failures == MAX_FAILURES:
            raise NoReadableImageError(
                f'{MAX_FAILURES} images in a row cannot be read, the last '
                f"'{path}' ({' '.join(str(error or reason).split())}): is "
                'the disk still there?') from error
        if self._skipped[idx] != code:
            self._skipped[idx] = code
            print_log(
                f"skipped the image '{path}' ({reason}): another one takes "
                'its place',
                logger='current',
                level=logging.WARNING)

    def _is_large_enough(self, image: dict) -> bool:
        return min(image.get('width', np.inf), image.get(
            'height', np.inf)) >= self.min_image_size

    def _log_what_is_dropped(self, images: list, ann_file: str) -> None:
        small = [x for x in images if not self._is_large_enough(x)]
        if small:
            print_log(
                f'ProposalCocoDataset drops {len(small)} of {len(images)} '
                f"images of '{ann_file}' with a side below "
                f'{self.min_image_size} pixels',
                logger='current')

    @staticmethod
    def _check_folder(folder: str, images: list) -> None:
        """Whether the images are there at all: a look at ten of them."""
        if '://' in folder:
            return  # not on a disk
        some = images[::max(1, len(images) // 10)]
        if not any(os.path.isfile(os.path.join(folder, image['file_name']))
                   for image in some):
            raise FileNotFoundError(
                f"there is no image '{some[0]['file_name']}' below "
                f"'{folder}', nor any of {len(some) - 1} others: check "
                'data_root and data_prefix.img_path')

    @staticmethod
    def _check_images(images: list, ann_file: str,
                      proposals: ProposalFile) -> None:
        missing = proposals.missing(np.array([x['id'] for x in images]))
        if len(missing):
            raise ValueError(
                f"the proposal file '{proposals.path}' lacks {len(missing)} "
                f"of the {len(images)} images of '{ann_file}' (the first: id "
                f'{missing[0]}): it was made for other images; run '
                'tools/generate_proposals.py with this ann_file')
        renamed = proposals.renamed(images)
        if renamed:
            raise ValueError(
                f"the proposal file '{proposals.path}' was made for other "
                f"images: {len(renamed)} of the {len(images)} ids of "
                f"'{ann_file}' are those of other files (the first: id "
                f"{renamed[0]['id']}, now '{renamed[0]['file_name']}'); run "
                'tools/generate_proposals.py with this ann_file')

    def _check_rules(self, proposals: ProposalFile) -> None:
        made_with = proposals.meta.get('rules')
        for transform in self.pipeline.transforms:
            rules = getattr(transform, 'rules', None)
            if rules is not None and rules.as_dict() != made_with:
                raise ValueError(
                    f"the proposals of '{proposals.path}' were made with "
                    f'{_spell(made_with)}, but the config '
                    f'asks {type(transform).__name__} for '
                    f'{_spell(rules.as_dict())}: run '
                    'tools/generate_proposals.py with these rules, or change '
                    'those of the config')


def _seed_of(seed: int, epoch: int, source: int, img_id: int) -> int:
    """A number of 63 bits that depends on each of the four."""
    sequence = np.random.SeedSequence([seed, epoch, source, img_id % 2**64])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1


def _spell(rules: Optional[dict]) -> str:
    if not rules:
        return 'no rules'
    return ', '.join(f'{name}={value:g}' for name, value in rules.items())


def _as_list(paths: Paths) -> list:
    return [paths] if isinstance(paths, (str, Path)) else list(paths)
