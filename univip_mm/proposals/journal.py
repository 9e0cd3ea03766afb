"""What a long search has found so far, safe against a kill at any moment.

A folder beside the proposal file to be, ``OUT.parts``, with one file of JSON
lines for each process that ever worked on it, and ``settings.json``. A line
is written when its image is finished, and counts once it is whole.
"""
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import numpy as np

_SYNC_INTERVAL = 30  # seconds: what a power cut may cost


class Journal:
    """The journal of one search, as one of its processes sees it.

    Args:
        out (str or PathLike): The proposal file to be.
        settings (dict): What the result depends on, as JSON can hold it.

    Raises:
        ValueError: The folder holds a search with other settings.
    """

    def __init__(self, out: Union[str, os.PathLike], settings: dict) -> None:
        self.folder = Path(f'{out}.parts')
        self._file = None
        self._lock = None
        self._synced = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / 'settings.json'
        settings = json.loads(json.dumps(settings))
        try:
            earlier = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            part = self.folder / f'.settings.{os.getpid()}'
            part.write_text(json.dumps(settings))
            os.replace(part, path)
            earlier = settings
        for name in settings:
            if settings[name] != earlier.get(name):
                raise ValueError(
                    f"'{self.folder}' holds an unfinished search with "
                    f'{name}={earlier.get(name)}, but now it is '
                    f'{settings[name]}: repeat the command as it was, or '
                    'remove that folder')

    def lock(self) -> None:
        """Keep others from the same search until this process ends.

        Raises:
            ValueError: Another process has it.
        """
        self._lock = open(self.folder / 'lock', 'w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another search is at work in '{self.folder}': wait for it, "
                'or end it') from None
        except OSError:
            pass  # a file system without locks

    def read(self) -> Iterator[tuple[int, np.ndarray, Optional[str]]]:
        """What all processes have written: image id, boxes (N, 4) int32, and
        why the image could not be read, or None. An image may come twice."""
        for path in sorted(self.folder.glob('*.jsonl')):
            with open(path, errors='replace') as lines:
                for line in lines:
                    if not line.endswith('\n'):
                        break  # cut off by a kill
                    try:
                        image_id, boxes, problem = json.loads(line)
                    except ValueError:
                        continue  # a power cut can leave anything
                    yield image_id, np.array(
                        boxes, dtype=np.int32).reshape(-1, 4), problem

    def write(self, image_id: int, boxes: np.ndarray,
              problem: Optional[str]) -> None:
        """Note a finished image."""
        if self._file is None:
            # A file of its own for each start: what a kill cut off stays the
            # last line of its file.
            self._file = tempfile.NamedTemporaryFile(
                'w', buffering=1, dir=self.folder, suffix='.jsonl',
                delete=False)
        content = [image_id, np.asarray(boxes).ravel().tolist(), problem]
        self._file.write(json.dumps(content, separators=(',', ':')) + '\n')
        if time.monotonic() - self._synced > _SYNC_INTERVAL:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Give what was written to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the folder: the proposal file is there."""
        shutil.rmtree(self.folder)
        if self._lock is not None:
            self._lock.close()
