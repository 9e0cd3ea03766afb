"""The proposal file: the boxes of a data set, opened with a memory map.

The file is an uncompressed ``.npz``, which ``numpy.load`` can read too:

========== ================== =============================================
image_ids  (I,) int64         ascending
offsets    (I + 1,) int64     image i has boxes[offsets[i]:offsets[i + 1]]
boxes      (B, 4) int16       xyxy in pixels, x2 and y2 outside; int32 if a
           or int32           coordinate needs it
names      (I,) uint32        CRC-32 of each image's file name without the
                              folder; or (0,) if no names were given
meta       (M,) uint8         JSON: how the boxes were made
========== ================== =============================================

Processes that open the file share the memory of the boxes. The file contains
no pickle. All values are checked when the file is opened.
"""
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from ..io.atomic import PathLike, atomic_write
from ..io.boxes import ProposalRules
from ..io.files import open_regular, parse_json
from ..utils.text import excerpt
from .array_map import map_arrays

FORMAT = 'univip_mm proposals'
VERSION = 1
# Allowed dtypes of each member, and its number of dimensions.
_MEMBERS = dict(
    image_ids=((np.int64, ), 1), offsets=((np.int64, ), 1),
    boxes=((np.int16, np.int32), 2), names=((np.uint32, ), 1),
    meta=((np.uint8, ), 1))
_BATCH_SIZE = 2**18  # boxes that are checked at a time, to save memory


def write_proposals(path: PathLike, boxes_by_image: Mapping, meta: dict,
                    file_names: Optional[Mapping] = None) -> None:
    """Write a proposal file atomically.

    Args:
        path (str or PathLike): The file, ending in ``.npz``.
        boxes_by_image (Mapping[int, np.ndarray]): Boxes by image id, (N, 4)
            xyxy in whole pixels, 0 <= x1 < x2 and 0 <= y1 < y2; N >= 0.
        meta (dict): How the boxes were made, as JSON types.
        file_names (Mapping[int, str], optional): File names by image id.
            They identify another data set that has the same ids.

    Raises:
        ValueError: The path does not end in ``.npz``, or a box is invalid.
    """
    path = check_path(path)
    image_ids = np.array(sorted(boxes_by_image), dtype=np.int64)
    lists = [np.asarray(boxes_by_image[i], dtype=np.int32).reshape(-1, 4)
             for i in image_ids.tolist()]
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    boxes = np.concatenate(lists or [np.zeros((0, 4), np.int32)])
    _check_boxes(image_ids, offsets, boxes)
    if len(boxes) == 0 or np.abs(boxes).max() <= np.iinfo(np.int16).max:
        boxes = boxes.astype(np.int16)
    names = [] if file_names is None else [
        _checksum_of_name(file_names[i]) for i in image_ids.tolist()]
    text = json.dumps(dict(format=FORMAT, version=VERSION, **meta),
                      allow_nan=False)
    with atomic_write(path) as file:
        np.savez(file, image_ids=image_ids, offsets=offsets, boxes=boxes,
                 names=np.array(names, dtype=np.uint32),
                 meta=np.frombuffer(text.encode(), dtype=np.uint8))


def check_path(path: PathLike) -> Path:
    """Return the path, or raise ValueError if it does not end in .npz."""
    if Path(path).suffix != '.npz':
        raise ValueError(f"the proposal file '{path}' must end in .npz")
    return Path(path)


class ProposalFile(Mapping):
    """Mapping of image ids to boxes (N, 4) xyxy, read from a proposal file.

    Attributes:
        meta (dict): How the boxes were made.
        boxes (np.ndarray): Memory map of the boxes of all images, (B, 4).

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a proposal file, is incomplete or damaged,
            or has a newer version of the format.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(
                f"no proposal file '{self.path}': make it with "
                'tools/generate_proposals.py')
        try:
            self._file = open_regular(path)
            arrays = map_arrays(self._file, list(_MEMBERS))
            self.meta = _read_meta(arrays['meta'])
            if self.meta['version'] <= VERSION:
                _check_arrays(**arrays)
        except (OSError, ValueError) as e:
            raise ValueError(
                f"'{self.path}' is not a proposal file, or is damaged "
                f'({_reason(e)}): make it again with '
                'tools/generate_proposals.py') from None
        if self.meta['version'] > VERSION:
            raise ValueError(
                f"'{self.path}' has version {self.meta['version']} of the "
                'proposal file, but this univip_mm reads versions up to '
                f'{VERSION}: update univip_mm')
        self._size = os.fstat(self._file.fileno()).st_size
        # Copies (16 bytes per image), because the arrays in the file are not
        # aligned and NumPy would copy them in every search.
        self._image_ids = arrays['image_ids'].copy()
        self._offsets = arrays['offsets'].copy()
        self.boxes = arrays['boxes']
        self._names = arrays['names'].copy()

    def __getitem__(self, image_id: int) -> np.ndarray:
        index = self._image_ids.searchsorted(image_id)
        if index == len(self) or self._image_ids[index] != image_id:
            raise KeyError(image_id)
        # Reading a map beyond the end of its file would kill the process.
        if os.fstat(self._file.fileno()).st_size < self._size:
            raise ValueError(f"'{self.path}' was truncated while it was in "
                             'use: write a new file, and rename it')
        return self.boxes[self._offsets[index]:self._offsets[index + 1]]

    def __iter__(self):
        return iter(self._image_ids.tolist())

    def __len__(self) -> int:
        return len(self._image_ids)

    def missing(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the image ids that the file does not have."""
        return np.setdiff1d(image_ids, self._image_ids)

    def renamed(self, images: Sequence[dict]) -> list:
        """Return the images whose id has another file name in the file.

        ``images`` are those of a COCO json; the file must have their ids.
        """
        if len(self._names) == 0:
            return []
        indices = self._image_ids.searchsorted([x['id'] for x in images])
        return [image for image, name in zip(images, self._names[indices])
                if _checksum_of_name(image['file_name']) != name]

    def counts(self) -> np.ndarray:
        """Return the number of boxes per image, (I,), in order of the ids."""
        return np.diff(self._offsets)

    def digest(self) -> str:
        """Return a digest of the boxes of all images."""
        digest = hashlib.sha256()
        for array in (self._image_ids, self._offsets, self.boxes):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def __getstate__(self) -> dict:
        # A worker process opens the file again, to share its memory. Pickled
        # arrays would be copied.
        return dict(path=self.path)

    def __setstate__(self, state: dict) -> None:
        ProposalFile.__init__(self, state['path'])


def _reason(error: Exception) -> str:
    # An OSError repeats the path.
    return getattr(error, 'strerror', None) or str(error)


def _checksum_of_name(file_name: str) -> int:
    name = file_name.replace('\\', '/').split('/')[-1]
    return zlib.crc32(name.encode(errors='surrogatepass'))


def _read_meta(array: np.ndarray) -> dict:
    """Parse the meta; raise ValueError if a field has the wrong type."""
    meta = parse_json(array.tobytes())
    if not isinstance(meta, dict) or meta.get('format') != FORMAT:
        raise ValueError('unknown format')
    if type(meta.get('version')) is not int:
        raise ValueError(f"version is {excerpt(meta.get('version'))}")
    for name in ('unreadable', 'reduced'):
        ids = meta.get(name, [])
        if not isinstance(ids, list) or not all(type(x) is int for x in ids):
            raise ValueError(f'{name} is not a list of image ids')
    rules = meta.get('rules')
    if rules is not None:
        try:
            # A NaN is not in order; other types are no numbers.
            numbers = [0 <= x < np.inf for x in rules.values()]
            if rules.keys() != ProposalRules().as_dict().keys() or not all(
                    numbers):
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f'rules is {excerpt(rules)}') from None
    return meta


def _check_arrays(image_ids: np.ndarray, offsets: np.ndarray,
                  boxes: np.ndarray, names: np.ndarray,
                  meta: np.ndarray) -> None:
    """Raise ValueError if the arrays do not fit the format, or each other."""
    arrays = dict(image_ids=image_ids, offsets=offsets, boxes=boxes,
                  names=names, meta=meta)
    for name, (dtypes, ndim) in _MEMBERS.items():
        array = arrays[name]
        if array.dtype not in dtypes or array.ndim != ndim:
            raise ValueError(
                f'{name} is {array.dtype} of shape {array.shape}, not '
                f'{" or ".join(x.__name__ for x in dtypes)} with {ndim} '
                'dimensions')
    number = len(image_ids)
    if (image_ids[1:] <= image_ids[:-1]).any():
        raise ValueError('image_ids are not ascending')
    if boxes.shape[1] != 4:
        raise ValueError(f'boxes have {boxes.shape[1]} columns')
    if len(names) not in (0, number):
        raise ValueError(f'{len(names)} names for {number} images')
    if len(offsets) != number + 1:
        raise ValueError(f'{len(offsets)} offsets for {number} images')
    if (offsets[0] != 0 or offsets[-1] != len(boxes)
            or (offsets[1:] < offsets[:-1]).any()):
        raise ValueError(f'offsets do not ascend from 0 to {len(boxes)}')
    _check_boxes(image_ids, offsets, boxes)


def _check_boxes(image_ids: np.ndarray, offsets: np.ndarray,
                 boxes: np.ndarray) -> None:
    """Raise ValueError for a box with a negative coordinate or an empty side.

    The size of the image is unknown: the training ignores boxes outside the
    image.
    """
    for start in range(0, len(boxes), _BATCH_SIZE):
        # A copy, because the arrays in the file are not aligned.
        x1, y1, x2, y2 = boxes[start:start + _BATCH_SIZE].T.copy()
        bad = (x1 < 0) | (y1 < 0) | (x1 >= x2) | (y1 >= y2)
        if bad.any():
            row = start + int(bad.argmax())
            image_id = image_ids[offsets.searchsorted(row, 'right') - 1]
            raise ValueError(
                f'image id {image_id} has the box {boxes[row].tolist()}, but '
                'a box needs 0 <= x1 < x2 and 0 <= y1 < y2')
