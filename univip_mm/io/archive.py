"""Images in a zip file or an uncompressed tar file, without extraction."""
import errno
import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from .archive_members import MAX, normal_name, tar_members, zip_members
from .atomic import PathLike, atomic_write
from .files import open_regular, parse_json

_SUFFIX = re.compile(
    r'\.(?:zip|tar|tar\.(?:gz|bz2|xz|zst)|tgz|tbz2|txz)(?=/|$)', re.I)
_KIND = b'{"magic": "univip_mm archive index'  # start of every index
_MAGIC = 'univip_mm archive index 3'
_HEAD = 4096  # bytes of the index before its table
# Rows of the table: hash, start of the data (zip: of the local header),
# bytes in the archive, bytes of the file, 1 if deflated, start and length of
# the name. Rows are contiguous, so that a search does not copy them.
_HASH, _START, _PACKED, _SIZE, _DEFLATED, _NAME, _LENGTH = range(7)
_OPENED: dict[str, 'Archive'] = {}


def has_archive_name(path: PathLike) -> bool:
    """Return True if a part of a path ends like an archive."""
    return _SUFFIX.search(os.fspath(path)) is not None


def split_path(path: PathLike) -> Optional[tuple[str, str]]:
    """Split a path into an archive and the name below it, or return None.

    A folder with a name like an archive is a folder.
    """
    path = os.fspath(path)
    for match in _SUFFIX.finditer(path):
        archive = path[:match.end()]
        if archive in _OPENED or os.path.isfile(archive):
            return archive, normal_name(path[match.end():])
    return None


def open_archive(path: str) -> 'Archive':
    """Return the archive, opened once per process, and again if it changes.

    Raises:
        ValueError: As :class:`Archive`.
        OSError: The archive cannot be opened.
    """
    archive = _OPENED.get(path)
    if archive is None or archive.stamp != _stamp(os.stat(path)):
        archive = _OPENED[path] = Archive(path)
    return archive


def is_file(path: PathLike) -> bool:
    """Return True for a regular file, on the disk or in an archive."""
    parts = split_path(path)
    if parts is None or not parts[1]:
        return os.path.isfile(path)
    return open_archive(parts[0]).find(parts[1]) is not None


def report_archive(path: PathLike, report: Callable[[str], None]) -> None:
    """Report what is wrong with the archive that a path is in, if any."""
    if parts := split_path(path):
        for remark in open_archive(parts[0]).remarks:
            report(remark)


def cure_of_folder(folder: PathLike, name: str, option: str) -> str:
    """Return the cure if the file ``name`` is not below ``folder``.

    ``option`` is what the user sets to the folder.
    """
    parts = split_path(folder)
    if parts is None:
        path = Path(folder)
        for part in (*reversed(path.parents), path):
            if not part.exists():
                return f"'{part}' does not exist, check {option}"
        return f'check {option}'
    for found in open_archive(parts[0]).names():
        if f'/{found}'.endswith(f'/{name}'):
            right = os.path.join(parts[0], found[:-len(name)]).rstrip('/')
            return f"set {option} to '{right}'"
    return f'check {option}'


class Archive:
    """Files of a zip or an uncompressed tar, found through an index.

    The index is kept beside the archive, as ``ARCHIVE.index``, and rebuilt if
    the archive has another size or time. All processes share its pages. A
    file of this name that is no index stays as it is.

    Attributes:
        stamp (list[int]): Size, bytes, and time of the last change, ns.
        remarks (list[str]): What the user should know, such as that the
            archive is cut short.

    Raises:
        ValueError: The archive is compressed as a whole, damaged, encrypted,
            or has a file with another compression than deflate.
        OSError: The archive cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not path.lower().endswith(('.zip', '.tar')):
            raise ValueError(
                f"'{path}' is compressed as a whole, so that no file can be "
                'read alone: decompress it to a .tar')
        self._file = open_regular(path)
        self.stamp = _stamp(os.fstat(self._file.fileno()))
        self.remarks: list[str] = []
        self._is_zip = path.lower().endswith('.zip')
        if not self._load():
            self._build()

    def find(self, name: str) -> Optional[int]:
        """Return the number of a file in the index, or None."""
        try:
            data = _encode(name)
        except UnicodeEncodeError:  # no file can have this name
            return None
        key = _hash(data)
        at = int(np.searchsorted(self._table[_HASH], key))
        while at < len(self) and self._table[_HASH, at] == key:
            if self._name(at) == data:
                return at
            at += 1
        return None

    def __len__(self) -> int:
        return self._table.shape[1]

    def names(self) -> Iterator[str]:
        """Yield the names of all files, in the order of the index."""
        for at in range(len(self)):
            yield self._name(at).decode('utf-8', 'surrogateescape')

    def size(self, name: str) -> int:
        """Return the size of a file in bytes; raise as :meth:`read`."""
        return int(self._table[_SIZE, self._row(name)])

    def read(self, name: str) -> bytes:
        """Read a file; the bytes end where a cut-off archive ends.

        Raises:
            FileNotFoundError: The archive has no such file.
            OSError: The compressed data is damaged.
        """
        at = self._row(name)
        start, packed, size, deflated = map(
            int, self._table[_START:_DEFLATED + 1, at])
        handle = self._file.fileno()
        if self._is_zip:
            head = os.pread(handle, 30, start)
            if len(head) < 30 or head[:4] != b'PK\3\4':
                raise self._error(errno.EIO, 'damaged zip', name)
            start += 30 + sum(struct.unpack('<HH', head[26:]))
        packed = min(packed, max(self.stamp[0] - start, 0))
        data = os.pread(handle, packed, start)
        if not deflated:
            return data
        try:
            return zlib.decompressobj(-15).decompress(data, max(size, 1))
        except zlib.error as e:
            raise self._error(errno.EIO, f'damaged zip: {e}', name) from None

    def _row(self, name: str) -> int:
        at = self.find(name)
        if at is None:
            raise self._error(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return at

    def _error(self, number: int, reason: str, name: str) -> OSError:
        return OSError(number, reason, f'{self.path}/{name}')

    def _name(self, at: int) -> bytes:
        start = int(self._table[_NAME, at])
        length = int(self._table[_LENGTH, at])
        return self._names[start:start + length].tobytes()

    def _load(self) -> bool:
        """Map the index; return False if it is missing, old or damaged."""
        try:
            with open_regular(f'{self.path}.index') as file:
                head = parse_json(file.read(_HEAD))
                data = np.memmap(file, np.uint8, 'r')[_HEAD:]
            if head['magic'] != _MAGIC or head['archive'] != self.stamp or (
                    head['sum'] != zlib.crc32(data.data)):
                return False
            self._set(data, head['files'])
            if (self._table[_START:_DEFLATED] >= MAX).any():
                return False
            self._add_remark(head['remark'])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return False
        return True

    def _add_remark(self, remark: str) -> None:
        if remark:
            self.remarks.append(f"'{self.path}' {remark}")

    def _set(self, data: np.ndarray, count: int) -> None:
        # Plain arrays: slices of a memmap cost 10 times as much.
        data = np.asarray(data).view(np.ndarray)
        self._table = data[:56 * count].view('<u8').reshape(7, count)
        self._names = data[56 * count:]

    def _build(self) -> None:
        """Build the index and write it beside the archive."""
        list_members = zip_members if self._is_zip else tar_members
        members, remark = list_members(self._file, self.path)
        self._add_remark(remark)
        names = [_encode(name) for name in members]
        table = np.zeros((7, len(members)), '<u8')
        if members:
            table[_START:_DEFLATED + 1] = np.array(list(members.values())).T
            table[_HASH] = [_hash(name) for name in names]
            table[_LENGTH] = list(map(len, names))
            table[_NAME] = np.cumsum(table[_LENGTH]) - table[_LENGTH]
            table = table[:, np.argsort(table[_HASH], kind='stable')]
        data = np.ascontiguousarray(table).tobytes() + b''.join(names)
        self._set(np.frombuffer(data, np.uint8), len(members))
        # The path is not stored: it can be long, and the files can be moved.
        head = json.dumps(dict(
            magic=_MAGIC, archive=self.stamp, files=len(members),
            sum=zlib.crc32(data), remark=remark))
        self._keep(head.encode().ljust(_HEAD) + data)

    def _keep(self, data: bytes) -> None:
        """Write the index, but not over a file that is none."""
        path = f'{self.path}.index'
        try:
            if os.path.lexists(path) and not _is_index(path):
                raise OSError(errno.EEXIST, f"another file is at '{path}'")
            with atomic_write(path) as file:
                file.write(data)
        except OSError as e:
            self.remarks.append(
                f"the index of '{self.path}' cannot be kept beside it "
                f'({e.strerror}): each process builds its own')


def _is_index(path: str) -> bool:
    try:
        with open_regular(path, follow=False) as file:
            return file.read(len(_KIND)) == _KIND
    except OSError:
        return False


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns]


def _encode(name: str) -> bytes:
    return name.encode('utf-8', 'surrogateescape')


def _hash(name: bytes) -> np.uint64:
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, 'little'))
