"""Unfinished pixel cache, safe if the process is killed.

The folder ``OUT.parts`` beside the cache has the file ``pixels``, which
becomes the cache, and ``journal``, a JSON line with a CRC-32 for each image
whose pixels are written. An incomplete or damaged line does not count. After
a power failure, lines can exist without their pixels: the journal has a line
after each sync of the pixels, and later lines count only if the computer has
not been started again since.
"""
import fcntl
import json
import os
import time
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Optional

from .atomic import PathLike, open_to_append
from .files import open_regular, parse_json
from .pixel_cache import ALIGNMENT, Entry, Source, aligned
from .unfinished import claim_folder, remove_files

_BOOT_ID = Path('/proc/sys/kernel/random/boot_id')
_SYNC_INTERVAL = 30  # seconds of work that a power failure can cost


class CacheJournal:
    """Journal of an unfinished cache, locked against a second process.

    Args:
        out (str or PathLike): The cache file.

    Raises:
        ValueError: Another process makes this cache, or the place of the
            folder is taken, or has files of the user.
    """

    def __init__(self, out: PathLike) -> None:
        self.folder = Path(f'{os.fspath(out)}.parts')
        self.pixels = self.folder / 'pixels'
        self._path = self.folder / 'journal'
        self._file: Optional[IO[str]] = None
        self._synced = time.monotonic()
        claim_folder(self.folder, 'lock', 'an unfinished pixel cache')
        self._lock = open_to_append(self.folder / 'lock')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(
                f"another process makes the pixel cache in '{self.folder}': "
                'wait for it to end, or stop it') from None
        except OSError:
            pass  # the file system has no locks

    def start(self) -> list[Entry]:
        """Return the finished images, and open the journal for more.

        Without a file of pixels, the journal is emptied.
        """
        entries = self._read() if self.pixels.is_file() else []
        if not entries:
            self._path.unlink(missing_ok=True)
            self.pixels.unlink(missing_ok=True)
            open_to_append(self.pixels).close()
        self._file = open_to_append(self._path)
        self._begin()
        return entries

    def _begin(self) -> None:
        assert self._file is not None
        # Ends a line that was cut off by a kill.
        self._file.write('\n')
        self._write(['boot', _boot_id()])

    def compact(self, entries: Collection[Entry]) -> list[Entry]:
        """Remove the space that the pixels of these images do not use.

        Other images are dropped. If the process is killed meanwhile, the
        images that move are lost.

        Returns:
            list[Entry]: The entries with their new positions.
        """
        assert self._file is not None
        entries = sorted(entries, key=lambda entry: entry.offset)
        moved, end = [], ALIGNMENT
        for entry in entries:
            moved.append(entry._replace(offset=end))
            end = aligned(moved[-1].end)
        moves = [(old, new) for old, new in zip(entries, moved) if old != new]
        # The file stays the same, so that the sync covers its new content.
        self._file.truncate(0)
        self._begin()
        for entry in moved[:len(moved) - len(moves)]:
            self._write(['image', *entry])
        self.sync()
        with open(self.pixels, 'rb+') as file:
            for old, new in moves:
                file.seek(old.offset)
                data = file.read(old.end - old.offset)
                file.seek(new.offset)
                file.write(data)
            file.truncate(moved[-1].end if moved else 0)
        for _, entry in moves:
            self._write(['image', *entry])
        self.sync()
        return moved

    def _read(self) -> list[Entry]:
        """Return the images whose pixels are certainly in the file."""
        trusted: list[Entry] = []
        recent: list[Entry] = []
        boot_id = ''
        try:
            file = open_regular(self._path, follow=False)
        except OSError:
            return []
        with file:
            for line in file:
                kind, *values = _parse(line) or ['']
                if kind == 'boot':
                    # The earlier process has ended, without a sync.
                    if not boot_id or values != [boot_id]:
                        recent = []
                    boot_id = values[0]
                elif kind == 'sync':
                    trusted, recent = trusted + recent, []
                elif kind == 'image':
                    image_id, name, offset, height, width, source = values
                    recent.append(Entry(image_id, name, offset, height, width,
                                        Source(*source)))
        same_boot = boot_id == _boot_id() != ''
        size = self.pixels.stat().st_size
        return [entry for entry in trusted + (recent if same_boot else [])
                if entry.end <= size]

    def write(self, entry: Entry) -> None:
        """Write the line of an image whose pixels are in the file."""
        self._write(['image', *entry])
        if time.monotonic() - self._synced > _SYNC_INTERVAL:
            self.sync()

    def sync(self) -> None:
        """Write everything to the disk."""
        for path, line in ((self.pixels, ['sync']), (self._path, None)):
            with open(path, 'rb') as file:
                os.fsync(file.fileno())
            if line:
                self._write(line)
        self._synced = time.monotonic()

    def _write(self, values: list) -> None:
        assert self._file is not None
        text = json.dumps(values, separators=(',', ':'))
        self._file.write(f'{text}\t{zlib.crc32(text.encode())}\n')
        self._file.flush()

    def close(self) -> None:
        """Close the files and release the lock."""
        if self._file is not None:
            self._file.close()
        self._lock.close()

    def remove(self) -> None:
        """Remove the files and the folder, and release the lock."""
        remove_files(self.folder, ('pixels', 'journal', 'lock'))
        self.close()


def _parse(line: bytes) -> Optional[list]:
    text, _, checksum = line.rpartition(b'\t')
    if not text or checksum != b'%d\n' % zlib.crc32(text):
        return None
    return parse_json(text)


def _boot_id() -> str:
    """Return a text that changes when the computer starts, or ''."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ''
