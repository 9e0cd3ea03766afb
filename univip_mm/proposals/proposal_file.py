"""The proposal file: the boxes of a whole data set, opened by memory map.

An uncompressed ``.npz``, so ``numpy.load`` reads it too, of

========== ================== =============================================
image_ids  (I,) int64         ascending
offsets    (I + 1,) int64     image i has boxes[offsets[i]:offsets[i + 1]]
boxes      (B, 4) int16       xyxy in pixels, x2 and y2 outside; int32 where
           or int32           a coordinate needs it
names      (I,) uint32        CRC-32 of each image's file name, without its
                              folder; or (0,), where none were given
meta       (M,) uint8         JSON: how the boxes were made
========== ================== =============================================

All processes that open it share the pages of the boxes. Nothing in it is a
pickle.
"""
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np

FORMAT = 'univip_mm proposals'
VERSION = 1
_MEMBERS = ('image_ids', 'offsets', 'boxes', 'names', 'meta')


def write_proposals(path: Union[str, os.PathLike],
                    boxes_by_image: Mapping,
                    meta: dict,
                    file_names: Optional[Mapping] = None) -> None:
    """Write a proposal file. It appears whole or not at all.

    Args:
        path (str or PathLike): The file, ending in ``.npz``.
        boxes_by_image (Mapping[int, np.ndarray]): Image id to its boxes,
            (N, 4) xyxy at whole pixels; N may be 0.
        meta (dict): How they were made, as JSON can hold it.
        file_names (Mapping[int, str], optional): Image id to its file name,
            by which the images of another data set with the same ids are
            told. Defaults to None.

    Raises:
        ValueError: The path does not end in ``.npz``.
    """
    path = check_path(path)
    image_ids = np.array(sorted(boxes_by_image), dtype=np.int64)
    lists = [
        np.asarray(boxes_by_image[i], dtype=np.int32).reshape(-1, 4)
        for i in image_ids.tolist()
    ]
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(boxes) for boxes in lists], out=offsets[1:])
    boxes = np.concatenate(lists or [np.zeros((0, 4), np.int32)])
    if len(boxes) == 0 or np.abs(boxes).max() <= np.iinfo(np.int16).max:
        boxes = boxes.astype(np.int16)
    names = [name_code(file_names[i]) for i in image_ids.tolist()
             ] if file_names is not None else []
    text = json.dumps(dict(format=FORMAT, version=VERSION, **meta))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        with open(part, 'wb') as file:
            np.savez(
                file,
                image_ids=image_ids,
                offsets=offsets,
                boxes=boxes,
                names=np.array(names, dtype=np.uint32),
                meta=np.frombuffer(text.encode(), dtype=np.uint8))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def name_code(file_name: str) -> int:
    """What the file holds of an image's name, without its folder."""
    return zlib.crc32(file_name.replace('\\', '/').split('/')[-1].encode())


def check_path(path: Union[str, os.PathLike]) -> Path:
    """The path of a proposal file to be.

    Raises:
        ValueError: It does not end in ``.npz``.
    """
    path = Path(path)
    if path.suffix != '.npz':
        raise ValueError(f"the proposal file '{path}' must end in .npz")
    return path


class ProposalFile(Mapping):
    """A proposal file, as a mapping of image id to boxes (N, 4) xyxy.

    Args:
        path (str or PathLike): The file.

    Attributes:
        meta (dict): How the boxes were made.
        boxes (np.ndarray): Those of all images, (B, 4), mapped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a proposal file, or is cut short.
    """

    def __init__(self, path: Union[str, os.PathLike]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"there is no proposal file '{self.path}': make it with "
                'tools/generate_proposals.py')
        try:
            arrays = _map_members(self.path)
            self.meta = json.loads(bytes(arrays['meta']))
            if self.meta['format'] != FORMAT:
                raise ValueError('unknown format')
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
            raise ValueError(
                f"'{self.path}' is not a proposal file, or is cut short "
                f'({e}): make it again with tools/generate_proposals.py'
            ) from None
        if self.meta['version'] > VERSION:
            raise ValueError(
                f"'{self.path}' has version {self.meta['version']} of the "
                f'proposal file, and this univip_mm reads up to {VERSION}: '
                'update univip_mm')
        # Copies, 16 bytes an image: in the file they lie at any byte, and
        # NumPy would copy them for every search.
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
        """Those of the image ids that the file does not have."""
        return np.setdiff1d(image_ids, self._image_ids)

    def renamed(self, images: Sequence[dict]) -> list:
        """Those of a COCO json's ``images`` whose id the file has for an
        image of another file name."""
        if len(self._names) == 0:
            return []
        places = self._image_ids.searchsorted([x['id'] for x in images])
        return [image for image, code in zip(images, self._names[places])
                if name_code(image['file_name']) != code]

    def counts(self) -> np.ndarray:
        """Number of boxes of each image, (I,), in ascending image id."""
        return np.diff(self._offsets)

    def __getstate__(self) -> dict:
        # A worker process opens the file again and shares its pages, where
        # pickling the arrays would copy them.
        return dict(path=self.path)

    def __setstate__(self, state: dict) -> None:
        ProposalFile.__init__(self, state['path'])


def _map_members(path: Path) -> dict:
    """Memory maps of an uncompressed .npz's arrays."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, open(path, 'rb') as file:
        for name in _MEMBERS:
            info = archive.getinfo(f'{name}.npy')
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError('it is compressed')
            # The local header in front of the data: 30 bytes, of which the
            # last four are the lengths of the name and of the extra field.
            file.seek(info.header_offset + 26)
            lengths = np.frombuffer(file.read(4), dtype='<u2')
            file.seek(info.header_offset + 30 + int(lengths.sum()))
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else
                np.lib.format.read_array_header_2_0)
            shape, fortran_order, dtype = read_header(file)
            if dtype.hasobject or fortran_order:
                raise ValueError(f'{name} is not a plain array')
            if 0 in shape:  # a memory map cannot be empty
                arrays[name] = np.zeros(shape, dtype)
            else:
                mapped = np.memmap(
                    path, dtype, 'r', offset=file.tell(), shape=shape)
                # A plain view of it: ten times as fast to index.
                arrays[name] = mapped.view(np.ndarray)
    return arrays
