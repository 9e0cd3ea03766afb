"""Finished parts of the features of a data set, so that a run can resume."""
import json
import os.path as osp
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..io.atomic import atomic_write
from ..io.files import read_json
from ..io.unfinished import claim_folder, remove_files
from ..utils.errors import warn
from ..utils.text import printable

PART = 2048  # images
# Also marks the folder: that of an unfinished search has another file.
_SETTINGS = 'features.json'
_FILES = ('[0-9]' * 6 + '.npz', '.[0-9]*.npz.*.part',
          f'.{_SETTINGS}.*.part')


class Parts:
    """Features of consecutive images, ``PART`` of them per file.

    Parts of an earlier run are used if it had the same settings; other parts
    are removed. Other files in the folder are kept.

    Args:
        folder (str): Folder of the parts.
        settings (dict): All that the features depend on.
        total (int): Number of images.

    Attributes:
        done (int): Number of images in the parts of an earlier run.

    Raises:
        ValueError: The folder is not one of parts, or is damaged.
    """

    def __init__(self, folder: str, settings: dict, total: int) -> None:
        self.folder = folder
        self.total = total
        self._prepare(settings)
        self._numbers = range(-(-total // PART))
        self._finished = set(filter(self._is_complete, self._numbers))
        self.done = sum(len(self._range(x)) for x in self._finished)
        self._indices: list[int] = []
        self._features: list[np.ndarray] = []
        self._reasons: list[str] = []
        if self.done:
            warn(f'resuming after {self.done} of {total} images, kept in '
                 f"'{folder}'")

    def missing_batches(self, batch_size: int) -> list[range]:
        """Return the indices of all images to do, as batches of one part."""
        batches = []
        for number in self._numbers:
            if number not in self._finished:
                images = self._range(number)
                batches += [images[start:start + batch_size]
                            for start in range(0, len(images), batch_size)]
        return batches

    def add(self, batch: Sequence[int], features: np.ndarray,
            reasons: Sequence[str]) -> None:
        """Add a batch; write the part if it is complete.

        Args:
            batch (Sequence[int]): Indices of the images.
            features (np.ndarray): Features (n, C) of the readable images.
            reasons (Sequence[str]): Per image, why it is unreadable, or ''.
        """
        self._indices += batch
        self._reasons += reasons
        if len(features):
            self._features.append(features)
        number = batch[0] // PART
        if len(self._indices) < len(self._range(number)):
            return
        found = (np.concatenate(self._features) if self._features else
                 np.zeros((0, 0), np.float32))
        with atomic_write(self._path(number)) as file:
            np.savez(file, features=found, reasons=np.array(self._reasons))
        self._indices, self._features, self._reasons = [], [], []

    def reasons(self) -> list[str]:
        """Return for each image why it is unreadable, or ''."""
        return [reason for number in self._numbers
                for reason in self._read(number, 'reasons').tolist()]

    def channels(self) -> int:
        """Return the length of a feature; 0 if no image is readable."""
        return next((x.shape[1] for x in self.features()), 0)

    def features(self) -> Iterator[np.ndarray]:
        """Yield features (n, C) of the readable images, in order."""
        for number in self._numbers:
            features = self._read(number, 'features')
            if len(features):
                yield features

    def remove(self) -> None:
        """Remove the parts, and the folder if it is empty."""
        remove_files(Path(self.folder), (*_FILES, _SETTINGS))

    def _prepare(self, settings: dict) -> None:
        """Create the folder, or remove parts with other settings."""
        folder = Path(self.folder)
        claim_folder(folder, _SETTINGS, 'unfinished features')
        path = folder / _SETTINGS
        if path.exists():
            try:
                earlier = read_json(path)
            except (OSError, ValueError) as e:
                raise ValueError(
                    f"cannot read '{printable(path)}' ({printable(e)}), so "
                    'the settings of these unfinished features are unknown: '
                    'remove that folder') from None
            if earlier == settings:
                return
        remove_files(folder, _FILES)
        with atomic_write(path, 'w') as file:
            json.dump(settings, file)

    def _is_complete(self, number: int) -> bool:
        """Return True if a part was written and is not damaged."""
        try:
            reasons, features = (
                self._read(number, name) for name in ('reasons', 'features'))
        except ValueError:
            return False
        return (len(reasons) == len(self._range(number))
                and len(features) == np.count_nonzero(reasons == ''))

    def _read(self, number: int, name: str) -> np.ndarray:
        """Return the array ``features`` or ``reasons`` of a part."""
        try:
            with np.load(self._path(number)) as content:
                return content[name]
        except Exception:  # any error of a parser, or no file
            raise ValueError(
                f"'{printable(self._path(number))}' was removed or damaged "
                'while it was in use: repeat the command') from None

    def _path(self, number: int) -> str:
        return osp.join(self.folder, f'{number:06}.npz')

    def _range(self, number: int) -> range:
        return range(number * PART, min((number + 1) * PART, self.total))
