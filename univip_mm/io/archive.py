"""Images in a zip file or an uncompressed tar file, without extraction."""
import errno
import hashlib
import json
import os
import posixpath
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Optional

import numpy as np

from ..utils.errors import warn
from .atomic import PathLike, atomic_write
from .files import open_regular

_SUFFIX = re.compile(r'\.(?:zip|tar|tar\.gz|tgz)(?=/|$)', re.IGNORECASE)
_MAGIC = 'univip_mm archive index 1'
_HEAD = 4096  # bytes of the index before its table
# Rows of the table: hash, start of the data (zip: of the local header),
# bytes in the archive, bytes of the file, 1 if deflated, start and length of
# the name. Rows are contiguous, so that a search does not copy them.
_HASH, _START, _PACKED, _SIZE, _DEFLATED, _NAME, _LENGTH = range(7)
_OPENED: dict[str, 'Archive'] = {}


def split_path(path: PathLike) -> Optional[tuple[str, str]]:
    """Split a path into an archive and the name below it, or return None.

    A folder with a name like an archive is a folder.
    """
    path = os.fspath(path)
    for match in _SUFFIX.finditer(path):
        archive = path[:match.end()]
        if archive in _OPENED or os.path.isfile(archive):
            return archive, _normal(path[match.end():])
    return None


def open_archive(path: str) -> 'Archive':
    """Return the archive, opened once per process."""
    if path not in _OPENED:
        _OPENED[path] = Archive(path)
    return _OPENED[path]


def is_file(path: PathLike) -> bool:
    """Return True for a regular file, on the disk or in an archive."""
    parts = split_path(path)
    if parts is None or not parts[1]:
        return os.path.isfile(path)
    return open_archive(parts[0]).find(parts[1]) is not None


class Archive:
    """Files of a zip or an uncompressed tar, found through an index.

    The index is kept beside the archive, as ``ARCHIVE.index``, and rebuilt if
    the archive has another size or time. All processes share its pages.

    Raises:
        ValueError: The archive is compressed as a whole, damaged, encrypted,
            or has a file with another compression than deflate.
        OSError: The archive cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if path.lower().endswith(('.gz', '.tgz')):
            raise ValueError(f"'{path}' is compressed, so its files cannot be "
                             'found without reading all: gunzip it to a .tar')
        self._file = open_regular(path)
        status = os.fstat(self._file.fileno())
        self._stamp = [status.st_size, status.st_mtime_ns]
        self._is_zip = path.lower().endswith('.zip')
        if not self._load():
            self._build()

    def find(self, name: str) -> Optional[int]:
        """Return the number of a file in the index, or None."""
        data = _encode(name)
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
        path = f'{self.path}.index'
        try:
            with open_regular(path) as file:
                head = json.loads(file.read(_HEAD))
                size = os.fstat(file.fileno()).st_size
                count, length = head['files'], head['names']
                if (head['magic'] != _MAGIC or head['archive'] != self._stamp
                        or size != _HEAD + 56 * count + length):
                    return False
                pages = np.memmap(file, np.uint8, 'r')
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self._set(pages[_HEAD:], count)
        return True

    def _set(self, data: np.ndarray, count: int) -> None:
        # Plain arrays: slices of a memmap cost 10 times as much.
        data = np.asarray(data).view(np.ndarray)
        self._table = data[:56 * count].view('<u8').reshape(7, count)
        self._names = data[56 * count:]

    def _build(self) -> None:
        """Build the index and write it beside the archive."""
        rows = self._zip_rows() if self._is_zip else self._tar_rows()
        names = [_encode(name) for name in rows]
        table = np.zeros((7, len(rows)), '<u8')
        if rows:
            table[_START:_DEFLATED + 1] = np.array(list(rows.values())).T
            table[_HASH] = [_hash(name) for name in names]
            table[_LENGTH] = list(map(len, names))
            table[_NAME] = np.cumsum(table[_LENGTH]) - table[_LENGTH]
            table = table[:, np.argsort(table[_HASH], kind='stable')]
        blob = b''.join(names)
        head = json.dumps(dict(magic=_MAGIC, archive=self._stamp,
                               files=len(rows), names=len(blob)))
        data = np.ascontiguousarray(table).tobytes() + blob
        try:
            with atomic_write(f'{self.path}.index') as file:
                file.write(head.encode().ljust(_HEAD) + data)
        except OSError as e:
            warn(f"the index of '{self.path}' cannot be kept beside it "
                 f'({e.strerror}): each process builds its own')
        self._set(np.frombuffer(data, np.uint8), len(rows))

    def _zip_rows(self) -> dict[str, tuple]:
        rows = {}
        try:
            with zipfile.ZipFile(self._file) as archive:
                infos = archive.infolist()
        except zipfile.BadZipFile as e:
            raise ValueError(f"'{self.path}' is damaged or cut short ({e}): "
                             'copy it again') from None
        for info in infos:
            if info.is_dir():
                continue
            if info.flag_bits & 1 or info.compress_type not in (0, 8):
                reason = ('encrypted' if info.flag_bits & 1 else
                          f'compressed with method {info.compress_type}')
                raise ValueError(
                    f"'{info.filename}' of '{self.path}' is {reason}: make a "
                    'zip with stored or deflated files')
            rows[_normal(info.filename)] = (
                info.header_offset, info.compress_size, info.file_size,
                int(info.compress_type == 8))
        return rows

    def _tar_rows(self) -> dict[str, tuple]:
        rows: dict[str, tuple] = {}
        reason, end = '', 0
        try:
            with tarfile.open(fileobj=self._file, mode='r:') as archive:
                while (member := archive.next()) is not None:
                    # Otherwise, it keeps all members in memory.
                    vars(archive)['members'] = []
                    name = _normal(member.name)
                    if member.islnk() and _normal(member.linkname) in rows:
                        rows[name] = rows[_normal(member.linkname)]
                    elif member.isreg() and member.sparse is None:
                        rows[name] = (member.offset_data, member.size,
                                      member.size, 0)
                    end = archive.offset
        except (tarfile.TarError, EOFError) as e:
            reason = str(e)
        if not rows and reason:
            raise ValueError(f"'{self.path}' is not an uncompressed tar file "
                             f'({reason}): gunzip it or copy it again')
        if reason or end + tarfile.BLOCKSIZE > self._stamp[0]:
            warn(f"'{self.path}' is cut short after {len(rows)} files: copy "
                 'it again')
        return rows


def _normal(name: str) -> str:
    name = posixpath.normpath(name.lstrip('/'))
    return '' if name == '.' else name


def _encode(name: str) -> bytes:
    return name.encode('utf-8', 'surrogateescape')


def _hash(name: bytes) -> np.uint64:
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, 'little'))
