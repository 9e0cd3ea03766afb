"""Results of an unfinished search, safe if the search is killed.

The folder ``OUT.parts`` beside the proposal file has ``settings.json``, and a
file of JSON lines from each process. A process writes a line when an image is
finished: ``[image id, file name, [x1, y1, x2, y2, ...], problem or null,
reduced, CRC-32]``. An incomplete or damaged line does not count, so its image
is searched again. ``images.json`` lists the images of the search.
"""
import fcntl
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Optional

import numpy as np

from ..io.atomic import PathLike, atomic_write, open_to_append
from ..io.boxes import ProposalRules, obeys_shape_rules
from ..io.files import open_regular, parse_json, read_json
from ..io.unfinished import claim_folder, remove_files
from ..utils.text import excerpt
from .search import Found

LIST = 'images.json'
_FORMAT = 2  # of a line
_SETTINGS, _LOCK = 'settings.json', 'lock'
_SYNC_INTERVAL = 30  # seconds of work that a power failure can cost
_MAX_LINE = 2**24  # bytes, of about a million boxes


class Journal:
    """Journal of a search, opened by one of its processes.

    Args:
        out (str or PathLike): The proposal file that the search will write.
        settings (dict): Everything that the boxes of an image depend on, as
            JSON types. ``rules`` are those of the boxes.

    Raises:
        ValueError: The folder belongs to a search with other settings, is
            damaged, or has files of the user.
    """

    def __init__(self, out: PathLike, settings: dict) -> None:
        self.folder = journal_folder(out)
        self._file: Optional[IO[bytes]] = None
        self._lock: Optional[IO[str]] = None
        self._synced = time.monotonic()
        self._rules = ProposalRules(**settings['rules'])
        claim_folder(self.folder, _SETTINGS, 'an unfinished search')
        self._check_settings(
            json.loads(json.dumps(dict(settings, journal=_FORMAT))))

    def _check_settings(self, settings: dict) -> None:
        path = self.folder / _SETTINGS
        try:
            earlier = read_json(path, follow=False)
            if not isinstance(earlier, dict):
                raise ValueError('not a JSON object')
        except (OSError, ValueError) as e:
            if isinstance(e, FileNotFoundError):
                with atomic_write(path, 'w') as file:
                    json.dump(settings, file)
                return
            raise ValueError(
                f"cannot read '{path}' ({e}), so the settings of this "
                'unfinished search are unknown: remove that folder') from None
        for name, value in settings.items():
            if value != earlier.get(name):
                cure = ('finish it with the earlier version'
                        if name in ('versions', 'journal') else
                        'repeat the earlier command')
                raise ValueError(
                    f"'{self.folder}' belongs to an unfinished search with "
                    f'{name}={excerpt(earlier.get(name))}, but now it is '
                    f'{excerpt(value)}: {cure}, or remove that folder')

    def lock(self) -> None:
        """Lock the journal until :meth:`unlock`, or raise ValueError."""
        self._lock = open_to_append(self.folder / _LOCK)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another search is running in '{self.folder}': wait for it "
                'to end, or stop it') from None
        except OSError:
            pass  # the file system has no locks

    def read(self, names: Mapping[int, str]) -> Iterator[tuple[int, Found]]:
        """Yield the image id and the result of each finished image.

        An image can appear twice. Damaged lines, and lines of images whose id
        and file name are not in ``names``, are skipped.
        """
        for path in self._files():
            try:
                file = open_regular(path, follow=False)
            except OSError:
                continue  # a link or a pipe, which no search has written
            with file:
                while line := file.readline(_MAX_LINE):
                    result = self._parse(line)
                    if result and names.get(result[0]) == result[1]:
                        yield result[0], result[2]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob('*.jsonl'))

    def _parse(self, line: bytes) -> Optional[tuple[int, str, Found]]:
        """Return id, name and result in a line, or None if it is damaged."""
        text, _, checksum = line.rpartition(b',')
        if checksum != _end_of_line(text):
            return None
        try:
            image_id, name, numbers, problem, reduced = parse_json(text + b']')
            boxes = np.array(numbers).reshape(-1, 4)
        except (ValueError, TypeError):
            return None
        if (type(image_id) is not int or not isinstance(name, str)
                or not isinstance(problem, (str, type(None)))
                or type(reduced) is not bool):
            return None
        if len(boxes) and (
                boxes.dtype != np.int64 or boxes.min() < 0
                or boxes.max() > np.iinfo(np.int32).max
                or not obeys_shape_rules(boxes, self._rules).all()):
            return None
        return image_id, name, Found(boxes.astype(np.int32), problem, reduced)

    def write(self, image_id: int, name: str, found: Found) -> None:
        """Write the result of a finished image."""
        if self._file is None:
            # A new file for each start, so that a line truncated by a kill
            # stays the last line of its file.
            self._file = tempfile.NamedTemporaryFile(
                dir=self.folder, suffix='.jsonl', delete=False)
        content = [image_id, name, np.asarray(found.boxes).ravel().tolist(),
                   found.problem, found.reduced]
        text = json.dumps(content, separators=(',', ':')).encode()[:-1]
        self._file.write(text + b',' + _end_of_line(text))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_INTERVAL:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the files and the folder, and release the lock."""
        remove_files(self.folder, (
            '*.jsonl', '.*.json.*.part', LIST, _LOCK, _SETTINGS))
        self.unlock()

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()


def journal_folder(out: PathLike) -> Path:
    """Return the folder of the unfinished search of a proposal file."""
    return Path(f'{out}.parts')


def _end_of_line(text: bytes) -> bytes:
    """Return the checksum that ends the line of a text."""
    return b'%d]\n' % zlib.crc32(text)
