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
no pickle.
"""
import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Optional

import numpy as np

from ..io.atomic import PathLike, atomic_write

FORMAT = 'univip_mm proposals'
VERSION = 1
_MEMBERS = ('image_ids', 'offsets', 'boxes', 'names', 'meta')


def write_proposals(path: PathLike, boxes_by_image: Mapping, meta: dict,
                    file_names: Optional[Mapping] = None) -> None:
    """Write a proposal file atomically.

    Args:
        path (str or PathLike): The file, ending in ``.npz``.
        boxes_by_image (Mapping[int, np.ndarray]): Boxes by image id, (N, 4)
            xyxy in whole pixels, N >= 0.
        meta (dict): How the boxes were made, as JSON types.
        file_names (Mapping[int, str], optional): File names by image id.
            They identify another data set that has the same ids.

    Raises:
        ValueError: The path does not end in ``.npz``.
    """
    path = check_path(path)
    image_ids = np.array(sorted(boxes_by_image), dtype=np.int64)
    lists = [np.asarray(boxes_by_image[i], dtype=np.int32).reshape(-1, 4)
             for i in image_ids.tolist()]
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    boxes = np.concatenate(lists or [np.zeros((0, 4), np.int32)])
    if len(boxes) == 0 or np.abs(boxes).max() <= np.iinfo(np.int16).max:
        boxes = boxes.astype(np.int16)
    names = [] if file_names is None else [
        _checksum_of_name(file_names[i]) for i in image_ids.tolist()]
    text = json.dumps(dict(format=FORMAT, version=VERSION, **meta))
    with atomic_write(path) as file:
        np.savez(file, image_ids=image_ids, offsets=offsets, boxes=boxes,
                 names=np.array(names, dtype=np.uint32),
                 meta=np.frombuffer(text.encode(), dtype=np.uint8))


def check_path(path: PathLike) -> Path:
    """Return the path, or raise ValueError if it does not end in .npz."""
    path = Path(path)
    if path.suffix != '.npz':
        raise ValueError(f"the proposal file '{path}' must end in .npz")
    return path


class ProposalFile(Mapping):
    """Mapping of image ids to boxes (N, 4) xyxy, read from a proposal file.

    Attributes:
        meta (dict): How the boxes were made.
        boxes (np.ndarray): Memory map of the boxes of all images, (B, 4).

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a proposal file, is incomplete, or has a
            newer version of the format.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"no proposal file '{self.path}': make it with "
                'tools/generate_proposals.py')
        try:
            arrays = _map_members(self.path)
            self.meta = json.loads(bytes(arrays['meta']))
            if self.meta['format'] != FORMAT:
                raise ValueError('unknown format')
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
            raise ValueError(
                f"'{self.path}' is not a proposal file, or is truncated "
                f'({e}): make it again with tools/generate_proposals.py'
            ) from None
        if self.meta['version'] > VERSION:
            raise ValueError(
                f"'{self.path}' has version {self.meta['version']} of the "
                'proposal file, but this univip_mm reads versions up to '
                f'{VERSION}: update univip_mm')
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
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]

    def __getstate__(self) -> dict:
        # A worker process opens the file again, to share its memory. Pickled
        # arrays would be copied.
        return dict(path=self.path)

    def __setstate__(self, state: dict) -> None:
        ProposalFile.__init__(self, state['path'])


def _checksum_of_name(file_name: str) -> int:
    return zlib.crc32(file_name.replace('\\', '/').split('/')[-1].encode())


def _map_members(path: Path) -> dict:
    """Open memory maps of the arrays in an uncompressed .npz."""
    with zipfile.ZipFile(path) as archive, open(path, 'rb') as file:
        return {name: _map_array(path, file, archive.getinfo(f'{name}.npy'))
                for name in _MEMBERS}


def _map_array(path: Path, file: IO[bytes],
               info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError('it is compressed')
    # The local header before the data has 30 bytes. The last four are the
    # lengths of the name and of the extra field, which follow.
    file.seek(info.header_offset + 26)
    lengths = np.frombuffer(file.read(4), dtype='<u2')
    file.seek(info.header_offset + 30 + int(lengths.sum()))
    np.lib.format.read_magic(file)
    # np.savez writes version 1.0 of the header of all plain arrays.
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or fortran_order:
        raise ValueError(f'{Path(info.filename).stem} is not a plain array')
    if 0 in shape:  # a memory map cannot be empty
        return np.zeros(shape, dtype)
    mapped = np.memmap(path, dtype, 'r', offset=file.tell(), shape=shape)
    # Indexing a plain view is ten times as fast as indexing a np.memmap.
    return mapped.view(np.ndarray)
