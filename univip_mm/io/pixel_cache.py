"""Decoded images of a data set in one memory-mapped file.

The file starts with a header of 64 bytes: magic, version, position of the
index, number of images, bytes of the names, checksum of the index, checksum
of the header. The pixels follow, (H, W, 3) uint8 BGR, each image at a
multiple of 64 bytes. The index has the image ids in ascending order, then one
entry for each image, then the file names. All numbers are little-endian.
"""
import errno
import hashlib
import math
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from typing import IO, NamedTuple, Optional

import numpy as np

from .archive import open_archive, split_path
from .atomic import PathLike
from .files import open_regular
from .images import read_bytes

MAGIC = b'UniVIP pixels\0\0\0'
ALIGNMENT = 64  # bytes
_VERSION = 1
# Magic, version, position, images, bytes of names, checksum; then a CRC-32.
_HEADER = struct.Struct('<16sIQQI16s')
_HEADER_SIZE = 64
_ID = np.dtype('<i8')
_ENTRY = np.dtype([
    ('offset', '<u8'), ('height', '<u4'), ('width', '<u4'),
    ('size', '<u8'), ('mtime', '<i8'), ('digest', 'u1', 16),
    ('name_end', '<u8')])
_CURE = 'run tools/cache_pixels.py again'
_NO_CACHE = 'it is not a finished pixel cache; is the path right?'


class Source(NamedTuple):
    """Image file that an entry was decoded from.

    Attributes:
        size (int): Bytes of the file.
        mtime (int): Time of the last change, nanoseconds.
        digest (str): 16 bytes of BLAKE2b of the content, hexadecimal.
    """
    size: int
    mtime: int
    digest: str


class Entry(NamedTuple):
    """Image of a cache.

    Attributes:
        image_id (int): Image id in the COCO json.
        name (str): File name in the COCO json.
        offset (int): Position of the pixels, bytes.
        height (int): Height, pixels.
        width (int): Width, pixels.
        source (Source): The image file.
    """
    image_id: int
    name: str
    offset: int
    height: int
    width: int
    source: Source

    @property
    def end(self) -> int:
        """Position of the byte after the pixels."""
        return self.offset + 3 * self.height * self.width


class PixelCache:
    """Images of a cache file, read-only and shared by all processes.

    The file is mapped when an image is used for the first time, once in each
    process. No Python object per image is kept. Instances can be pickled.

    Args:
        path (str or PathLike): The file, from ``tools/cache_pixels.py``.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        self._file: Optional[IO[bytes]] = None

    def __getstate__(self) -> dict:
        return dict(path=self.path, _file=None)

    def __len__(self) -> int:
        self._open()
        return len(self._ids)

    @property
    def pixel_bytes(self) -> tuple[int, int]:
        """Bytes of all pixels: up to the last image, and of the images."""
        self._open()
        sizes = 3 * (self._entries['height'].astype('<u8')
                     * self._entries['width'])
        ends = self._entries['offset'] + sizes
        used = -(-sizes.astype(np.int64) // ALIGNMENT) * ALIGNMENT
        return aligned(int(ends.max())) - ALIGNMENT, int(used.sum())

    @property
    def ids(self) -> np.ndarray:
        """Image ids (N,) int64 in ascending order."""
        self._open()
        return self._ids

    def check(self) -> None:
        """Raise ValueError if the file is damaged, cut short or missing."""
        self._open()
        index = self._map[self._index_at:self._end]
        if _checksum(index) != self._index_sum:
            raise _damaged(self.path, 'its index has a wrong checksum')

    def has_changed(self) -> bool:
        """Return True if the file was written over since it was opened.

        Reading a map beyond the end of its file would kill the process. A new
        file of the same name is no change of the open one.
        """
        self._open()
        return _stamp(self._file) != self._stamp

    def pixels(self, entry: Entry) -> np.ndarray:
        """Return the pixels (H, W, 3) uint8 BGR of an entry, read-only."""
        self._open()
        if entry.end > self._index_at:
            raise _damaged(self.path, f"'{entry.name}' is cut off")
        shape = entry.height, entry.width, 3
        return np.frombuffer(
            self._map, np.uint8, math.prod(shape), entry.offset
        ).reshape(shape)

    def entry(self, image_id: int) -> Optional[Entry]:
        """Return the entry of an image, or None if there is none."""
        at = self._position(image_id)
        if at is None:
            return None
        offset, height, width, size, mtime, digest, end = (
            self._entries[at].item())
        start = int(self._entries['name_end'][at - 1]) if at else 0
        return Entry(image_id, _decode(self._names[start:end]),
                     offset, height, width,
                     Source(size, mtime, bytes(digest).hex()))

    def _position(self, image_id: int) -> Optional[int]:
        self._open()
        at = int(self._ids.searchsorted(image_id))
        if at < len(self._ids) and self._ids[at] == image_id:
            return at
        return None

    def _open(self) -> None:
        """Map the file and check its header and length."""
        if self._file is not None:
            return
        try:
            file = open_regular(self.path)
            stamp = _stamp(file)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no pixel cache '{self.path}': make it with "
                'tools/cache_pixels.py, or remove cache of LoadEncodedImage'
            ) from None
        except (OSError, ValueError) as e:  # ValueError: the file is empty
            raise _damaged(self.path, f'{e}') from None
        number, self._end, self._index_sum = self._read_header(mapped)
        start = self._index_at
        self._ids = np.frombuffer(mapped, _ID, number, start)
        start += number * _ID.itemsize
        self._entries = np.frombuffer(mapped, _ENTRY, number, start)
        start += number * _ENTRY.itemsize
        self._names = memoryview(mapped)[start:self._end]
        self._map, self._stamp, self._file = mapped, stamp, file

    def _read_header(self, mapped: mmap.mmap) -> tuple[int, int, bytes]:
        """Return number of images, end of the index, its checksum."""
        header = mapped[:_HEADER_SIZE]
        if header[:len(MAGIC)] != MAGIC:
            raise _damaged(self.path, _NO_CACHE)
        packed = header[:_HEADER.size]
        if header[_HEADER.size:_HEADER.size + 4] != _crc(packed):
            raise _damaged(self.path, 'its header has a wrong checksum')
        _, version, self._index_at, number, names, index_sum = (
            _HEADER.unpack(packed))
        if version != _VERSION:
            raise _damaged(self.path, f'version {version} of the format')
        end = self._index_at + names + number * (
            _ID.itemsize + _ENTRY.itemsize)
        # A longer file has a new index without its header: see write_index.
        if len(mapped) < end:
            raise _damaged(self.path, f'{len(mapped)} instead of {end} bytes')
        return number, end, index_sum


def source_stat(path: PathLike) -> tuple[int, int]:
    """Return bytes and time of the last change (ns) of an image file.

    A file in an archive has the time of the archive.

    Raises:
        OSError: The file is missing, or no file can have this name.
    """
    try:
        if parts := split_path(path):
            return _stat_in_archive(*parts)
        stat = os.stat(path)
    except ValueError as e:  # a zero byte or a lone surrogate
        raise OSError(errno.EINVAL, f'invalid file name: {e}') from None
    return stat.st_size, stat.st_mtime_ns


def _stat_in_archive(path: str, name: str) -> tuple[int, int]:
    try:
        archive = open_archive(path)
    except ValueError as e:  # it was damaged while in use
        raise OSError(errno.EIO, str(e)) from None
    return archive.size(name), archive.stamp[1]


def is_source_of(entry: Entry, path: PathLike) -> bool:
    """Return True if an entry has the pixels of the file at ``path``.

    The content is compared only if the time of the last change differs.
    """
    try:
        size, mtime = source_stat(path)
        return size == entry.source.size and (
            mtime == entry.source.mtime
            or digest_of_file(read_bytes(path)) == entry.source.digest)
    except (OSError, ValueError):
        return False


def updated(entry: Entry, path: PathLike) -> Optional[Entry]:
    """Return an entry with the time of its file, or None if it differs."""
    try:
        mtime = source_stat(path)[1]
    except OSError:
        return None
    return entry._replace(source=entry.source._replace(
        mtime=mtime)) if is_source_of(entry, path) else None


def is_pixel_cache(path: PathLike) -> bool:
    """Return True if a file is empty or starts as a cache, damaged or not."""
    with open_regular(path) as file:
        return file.read(len(MAGIC)) in (MAGIC, b'')


def write_index(file: IO[bytes], entries: Sequence[Entry]) -> None:
    """Write the index and the header of a file that has the pixels.

    In a finished cache, the new index follows the old one, which is valid
    until the header is written.
    """
    entries = sorted(entries)
    names = [_encode(entry.name) for entry in entries]
    table = np.zeros(len(entries), _ENTRY)
    for row, entry in zip(table, entries):
        row['offset'], row['height'], row['width'] = entry[2:5]
        row['size'], row['mtime'] = entry.source[:2]
        row['digest'] = list(bytes.fromhex(entry.source.digest))
    table['name_end'] = np.cumsum([len(name) for name in names])
    ids = np.array([entry.image_id for entry in entries], _ID)
    index = ids.tobytes() + table.tobytes() + b''.join(names)
    start = aligned(file.seek(0, os.SEEK_END))
    file.seek(start)
    file.write(index)
    file.flush()
    os.fsync(file.fileno())
    # The header is last: a file without one is not finished.
    packed = _HEADER.pack(MAGIC, _VERSION, start, len(entries),
                          sum(map(len, names)), _checksum(index))
    file.seek(0)
    file.write((packed + _crc(packed)).ljust(_HEADER_SIZE, b'\0'))
    file.flush()


def aligned(position: int) -> int:
    """Return the next multiple of ``ALIGNMENT``, at least one."""
    return max(-(-position // ALIGNMENT), 1) * ALIGNMENT


def digest_of_file(data: bytes) -> str:
    """Return the digest of an image file's content, for :class:`Source`."""
    return _checksum(data).hex()


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _crc(data: bytes) -> bytes:
    return struct.pack('<I', zlib.crc32(data))


def _encode(name: str) -> bytes:
    # A file name can have bytes that are not UTF-8.
    return name.encode('utf-8', 'surrogateescape')


def _decode(name: memoryview) -> str:
    return bytes(name).decode('utf-8', 'surrogateescape')


def _stamp(file: Optional[IO[bytes]]) -> tuple[int, int]:
    assert file is not None
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


def _damaged(path: str, reason: str) -> ValueError:
    return ValueError(f"the pixel cache '{path}' cannot be used ({reason}): "
                      f'{_CURE}')
