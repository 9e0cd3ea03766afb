"""Data set of COCO images with their proposals."""
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Optional, Union

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..io.archive import report_archive
from ..io.coco_json import image_path, read_coco
from ..io.images import (
    MISSING,
    NOT_READ,
    REASONS,
    TOO_SMALL,
    NoReadableImageError,
    UnreadableImageError,
    reason_of,
)
from ..io.urls import check_not_url, join_path
from ..proposals import ProposalFile
from ..registry import DATASETS
from ..utils.text import printable
from .cache_checks import check_cache_options, check_caches
from .file_backends import (
    COPY_FILE,
    backend_args_of,
    check_file_backend,
    check_loader,
    is_local,
)
from .proposal_checks import check_image_folder, check_image_ids, check_rules
from .size_check import check_boxes_fit, check_dropped
from .transforms.load_encoded_image import LoadEncodedImage, check_local_file

Paths = Union[str, Sequence[str]]
LOADERS = (LoadImageFromFile, LoadEncodedImage)
MAX_FAILURES = 50  # unreadable images in a row
_report = partial(print_log, logger='current', level=logging.WARNING)


@DATASETS.register_module()
class ProposalCocoDataset(BaseDataset):
    """Data set of the images of COCO jsons, each image with its proposals.

    The json is needed for its list of images only; annotations are not used.
    An image id connects an image with its proposals. ``ann_file``,
    ``proposal_file`` and ``data_prefix['img_path']`` can be lists of the same
    length, to join several data sets as in COCO+. Only images can be remote:
    ``data_prefix['img_path']`` can be a URL, or the loader in ``pipeline`` can
    have ``backend_args``.

    Images with a side below ``min_image_size`` in the json are dropped, and so
    are images that the proposal search could not read. The log reports their
    numbers. An image that is unreadable, or that turns out to be too small,
    is replaced with a random image and recorded in :attr:`skipped`. The
    json's ``width`` and ``height`` have no other use for searched proposals,
    so they can be the sizes before or after EXIF orientation. Imported
    proposals need the sizes of the files.

    A sample has ``img_path``, ``img_id``, ``sample_idx``, ``source``, the
    number of its json, and ``proposals`` (N, 4) float32, N >= 0: xyxy in
    pixels of the image after EXIF orientation, x2 and y2 outside. After a
    call of :meth:`set_epoch`, which :class:`EpochSampler` makes, a sample
    also has ``view_seed``, a function of the seed, the epoch and the image.
    In a :class:`RepeatDataset`, ``view_seed`` also depends on the
    repetition.

    Args:
        ann_file (str or Sequence[str]): COCO json, below ``data_root``.
        proposal_file (str or Sequence[str]): Proposal file of each json,
            below ``data_root``.
        data_root (str): Folder of the data set. Defaults to ''.
        data_prefix (dict): ``img_path`` is the folder of the images, below
            ``data_root``. The folder can be a .zip or .tar, or in one.
            Defaults to ``dict(img_path='')``.
        pipeline (Sequence): Transforms. An ``OverlapSceneCrop`` must have the
            rules that the proposals were made with. Defaults to ().
        min_image_size (int): Smallest side of an image, pixels. Defaults to
            64.
        **kwargs: Arguments of :class:`mmengine.dataset.BaseDataset`.

    Attributes:
        unreadable (list[str]): Paths of the images that were dropped because
            the proposal search could not read them; empty for a subset.
        repetition (tuple[int, int]): Number of the repetition, from 0, and
            the number of repetitions.
        first_source (int): Number of jsons in the data sets before this one,
            if several data sets are joined.

    Raises:
        FileNotFoundError: A file, or every checked image, is missing.
        ValueError: The lists have different lengths, a file is invalid, the
            proposals were made for other images, sizes or rules, the images
            have no file backend, or no image can be used.
    """

    ann_file: Paths
    unreadable: list[str]
    repetition = 0, 1
    first_source = 0

    def __init__(self, ann_file: Paths, proposal_file: Paths,
                 data_root: str = '', data_prefix: Optional[dict] = None,
                 pipeline: Sequence = (), min_image_size: int = 64,
                 **kwargs) -> None:
        self.proposal_file = proposal_file
        self.min_image_size = min_image_size
        super().__init__(
            ann_file=ann_file, data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            pipeline=list(pipeline), **kwargs)

    def _join_prefix(self) -> None:
        """Make each path a list, joined with ``data_root``."""
        self.ann_file = self._as_list(self.ann_file)
        self.proposal_file = self._as_list(self.proposal_file)
        folders = self._as_list(self.data_prefix.get('img_path', ''))
        self.data_prefix['img_path'] = folders
        lengths = dict(ann_file=len(self.ann_file),
                       proposal_file=len(self.proposal_file),
                       img_path=len(folders))
        if len(set(lengths.values())) != 1:
            raise ValueError(
                'ProposalCocoDataset needs as many ann_file as proposal_file '
                f'and data_prefix.img_path, but got {lengths}: set lists of '
                'the same length')

    def _as_list(self, paths: Paths) -> list[str]:
        paths = [paths] if isinstance(paths, (str, Path)) else paths
        return [join_path(self.data_root or '', path) for path in paths]

    def full_init(self) -> None:
        """Read the files, if they are not read yet."""
        if not self._fully_initialized:
            super().full_init()
            self._start(is_subset=self._indices is not None)

    def get_subset_(self, indices: Union[Sequence[int], int]) -> None:
        """Keep some of the images, as in the base class."""
        super().get_subset_(indices)
        self._start(is_subset=True)

    def get_subset(self, indices: Union[Sequence[int], int]) -> BaseDataset:
        """Return a copy with some of the images, as in the base class."""
        subset = super().get_subset(indices)
        subset._start(is_subset=True)
        return subset

    def _start(self, is_subset: bool) -> None:
        """Create the state of a training with these images."""
        if is_subset:
            self.unreadable = []
        self._failures = 0  # unreadable images in a row
        self._failed_seed = None  # view_seed of the last unreadable image
        # In shared memory, so that persistent workers see a new epoch and the
        # main process sees the skipped images.
        self._seed_and_epoch = torch.full((2, ), -1).share_memory_()
        self._skipped = torch.zeros(
            len(self), dtype=torch.uint8).share_memory_()

    def load_data_list(self) -> list:
        """Load the images of all jsons that can be used."""
        self._proposals: list[ProposalFile] = []
        self.unreadable = []
        data_list = []
        for paths in zip(self.ann_file, self.proposal_file,
                         self.data_prefix['img_path']):
            data_list += self._load_source(*paths)
        if not data_list:
            unread = (f' ({len(self.unreadable)} images could not be read by '
                      'the proposal search)' if self.unreadable else '')
            raise ValueError(
                f'no image of {self.ann_file} has both sides of at least '
                f'{self.min_image_size} pixels{unread}: lower min_image_size, '
                'or repair the images')
        return data_list

    def _load_source(self, ann_file: str, proposal_file: str,
                     folder: str) -> list[dict]:
        """Check one json and its proposals, and list its usable images."""
        check_not_url(ann_file, 'ann_file', COPY_FILE)
        check_not_url(proposal_file, 'proposal_file', COPY_FILE)
        images = read_coco(ann_file, _report)['images']
        proposals = ProposalFile(proposal_file)
        check_image_ids(images, ann_file, proposals)
        check_rules(proposals, self.pipeline.transforms)
        local = is_local(folder, self._backend_args)
        check_cache_options(self.pipeline.transforms, len(self.ann_file),
                            folder, local)
        if local:
            check_loader(folder, self.pipeline.transforms,
                         'use LoadEncodedImage in the pipeline')
            report_archive(folder, _report)
            check_image_folder(folder, images)
            check_boxes_fit(images, folder, ann_file, proposals)
        elif any(isinstance(x, LOADERS) for x in self.pipeline.transforms):
            check_file_backend(
                [os.path.join(folder, image['file_name']) for image in images],
                self._backend_args)
        check_caches(self.pipeline.transforms, len(self._proposals), images,
                     folder, ann_file)
        self._proposals.append(proposals)
        images = self._drop_unreadable(images, folder, proposals)
        # A json without sizes passes: prepare_data() checks the pixels.
        large = [x for x in images if self.min_image_size <= min(
            x.get('width', np.inf), x.get('height', np.inf))]
        if len(large) < len(images):
            kept = {x['id'] for x in large}
            if local:
                check_dropped(
                    [x for x in images if x['id'] not in kept], folder,
                    ann_file, self.min_image_size)
            print_log(
                f'ProposalCocoDataset drops {len(images) - len(large)} of '
                f"{len(images)} images of '{printable(ann_file)}' with a side "
                f'below {self.min_image_size} pixels', logger='current')
        return [
            dict(img_path=image_path(folder, image['file_name']),
                 img_id=image['id'], source=len(self._proposals) - 1)
            for image in large]

    @property
    def _backend_args(self) -> Optional[dict]:
        """Arguments of the file backend, of the loader in the pipeline."""
        return next((backend_args_of(x) for x in self.pipeline.transforms
                     if isinstance(x, LOADERS)), None)

    def _drop_unreadable(self, images: list[dict], folder: str,
                         proposals: ProposalFile) -> list[dict]:
        """Drop the images that the proposal search could not read."""
        ids = set(proposals.meta.get('unreadable', []))
        dropped = [os.path.join(folder, image['file_name'])
                   for image in images if image['id'] in ids]
        if not dropped:
            return images
        first = ', '.join(map(printable, dropped[:10]))
        print_log(
            f'ProposalCocoDataset drops {len(dropped)} of {len(images)} images'
            ' that the proposal search could not read: '
            f'{first}{", ..." if len(dropped) > 10 else ""}; repair them and '
            'run tools/generate_proposals.py again, which searches only these '
            'images', logger='current', level=logging.WARNING)
        self.unreadable += dropped
        return [image for image in images if image['id'] not in ids]

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Set the seed and epoch of the views, in all worker processes."""
        self._seed_and_epoch[0], self._seed_and_epoch[1] = seed, epoch

    def get_data_info(self, idx: int) -> dict:
        """Return the sample ``idx`` before the pipeline."""
        info = super().get_data_info(idx)
        source = info['source']
        proposals = self._proposals[source][info['img_id']]
        info['proposals'] = np.array(proposals, dtype=np.float32)
        seed, epoch = self._seed_and_epoch.tolist()
        if epoch >= 0:
            repetition, times = self.repetition
            info['view_seed'] = derive_view_seed(
                seed, epoch * times + repetition, self.first_source + source,
                info['img_id'])
        return info

    def prepare_data(self, idx: int) -> Optional[dict]:
        """Run the pipeline on the sample ``idx``.

        Returns None if the image is unreadable or too small; the base class
        then loads the image of :meth:`_rand_another`.

        Raises:
            NoReadableImageError: Too many images in a row are unreadable.
        """
        results = self.get_data_info(idx)
        for transform in self.pipeline.transforms:
            is_loader = isinstance(transform, LOADERS)
            try:
                if is_loader:
                    check_local_file(transform, results['img_path'])
                results = transform(results)
            except Exception as e:
                # Any error of a loader means an unreadable image. Later
                # transforms report one with UnreadableImageError.
                if not is_loader and not isinstance(e, UnreadableImageError):
                    raise
                self._skip(idx, results, reason_of(e), e)
                return None
            if results is None:
                return None
            if (is_loader
                    and min(results['img'].shape[:2]) < self.min_image_size):
                self._skip(idx, results, TOO_SMALL)
                return None
        self._failures = 0
        return results

    def _rand_another(self) -> int:
        """Return the index that replaces an unreadable image."""
        if self._failed_seed is None:
            return super()._rand_another()
        rng = np.random.default_rng([self._failed_seed, self._failures])
        return int(rng.integers(len(self)))

    def get_cat_ids(self, idx: int) -> list[int]:
        """Raise ValueError: wrappers such as ClassBalancedDataset call it."""
        raise ValueError('ProposalCocoDataset has no classes, so it cannot be '
                         'in a ClassBalancedDataset: remove this wrapper')

    @property
    def proposals(self) -> list[ProposalFile]:
        """The proposal file of each json."""
        return self._proposals

    @property
    def skipped(self) -> torch.Tensor:
        """Reasons why images were skipped, (len(self),) uint8, shared memory.

        0 for images that were not skipped. A reason is stored as its position
        in ``univip_mm.io.images.REASONS``, counted from 1.
        """
        return self._skipped

    def _skip(self, idx: int, results: dict, reason: str,
              error: Optional[Exception] = None) -> None:
        """Record an unreadable image, and stop after too many in a row."""
        self._failed_seed = results.get('view_seed')
        self._failures += 1
        path = printable(results['img_path'])
        detail = printable(' '.join(str(error or reason).split()))
        if self._failures == MAX_FAILURES:
            cure = ('check the files' if reason not in (MISSING, NOT_READ) else
                    'check that the disk is mounted'
                    if is_local(path, self._backend_args) else
                    'check the network and backend_args of the loader')
            raise NoReadableImageError(
                f'{MAX_FAILURES} images in a row cannot be read, the last '
                f"'{path}' ({detail}): {cure}") from error
        code = 1 + REASONS.index(reason)
        if self._skipped[idx] != code:
            self._skipped[idx] = code
            print_log(
                f"skipped the image '{path}' ({reason}): replaced with a "
                'random image', logger='current', level=logging.WARNING)


def derive_view_seed(seed: int, epoch: int, source: int, img_id: int) -> int:
    """Derive the seed of an image's views, an integer of 63 bits.

    ``source`` is the index of the json that lists the image.
    """
    sequence = np.random.SeedSequence([seed, epoch, source, img_id % 2**64])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
