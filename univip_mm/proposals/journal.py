"""Results of an unfinished search, safe if the search is killed.

The folder ``OUT.parts`` beside the proposal file has ``settings.json``, and a
file of JSON lines from each process. A process writes a line when an image is
finished. Incomplete lines do not count.
"""
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Optional

import numpy as np

from ..io.atomic import PathLike, atomic_write

_SYNC_INTERVAL = 30  # seconds of work that a power failure can cost


class Journal:
    """Journal of a search, opened by one of its processes.

    Args:
        out (str or PathLike): The proposal file that the search will write.
        settings (dict): Everything the result depends on, as JSON types.

    Raises:
        ValueError: The folder belongs to a search with other settings.
    """

    def __init__(self, out: PathLike, settings: dict) -> None:
        self.folder = Path(f'{out}.parts')
        self._file: Optional[IO[str]] = None
        self._lock: Optional[IO[str]] = None
        self._synced = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_settings(json.loads(json.dumps(settings)))

    def _check_settings(self, settings: dict) -> None:
        path = self.folder / 'settings.json'
        try:
            earlier = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            with atomic_write(path, 'w') as file:
                json.dump(settings, file)
            return
        for name, value in settings.items():
            if value != earlier.get(name):
                raise ValueError(
                    f"'{self.folder}' belongs to an unfinished search with "
                    f'{name}={earlier.get(name)}, but now it is {value}: '
                    'repeat the earlier command, or remove that folder')

    def lock(self) -> None:
        """Lock the journal until this process ends, or raise ValueError."""
        self._lock = open(self.folder / 'lock', 'w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another search is running in '{self.folder}': wait for it "
                'to end, or stop it') from None
        except OSError:
            pass  # the file system has no locks

    def read(self) -> Iterator[tuple[int, np.ndarray, Optional[str]]]:
        """Yield image id, boxes (N, 4) int32, and reason if unreadable.

        An image can appear twice.
        """
        for path in sorted(self.folder.glob('*.jsonl')):
            with open(path, errors='replace') as lines:
                for line in lines:
                    if not line.endswith('\n'):
                        break  # truncated by a kill
                    try:
                        image_id, boxes, problem = json.loads(line)
                    except ValueError:
                        continue  # damaged by a power failure
                    yield image_id, np.array(
                        boxes, dtype=np.int32).reshape(-1, 4), problem

    def write(self, image_id: int, boxes: np.ndarray,
              problem: Optional[str]) -> None:
        """Write the result of a finished image."""
        if self._file is None:
            # A new file for each start, so that a line truncated by a kill
            # stays the last line of its file.
            self._file = tempfile.NamedTemporaryFile(
                'w', 1, dir=self.folder, suffix='.jsonl', delete=False)
        content = [image_id, np.asarray(boxes).ravel().tolist(), problem]
        self._file.write(json.dumps(content, separators=(',', ':')) + '\n')
        if time.monotonic() - self._synced > _SYNC_INTERVAL:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the folder and release the lock."""
        shutil.rmtree(self.folder)
        if self._lock is not None:
            self._lock.close()
