"""The output folder of a run: its files, and whether it can be resumed."""
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ..engine.checkpoint import latest_checkpoint
from ..engine.safe_load import load
from ..io.atomic import PathLike, atomic_write
from ..io.files import read_json
from ..utils.text import excerpt, printable

VERSION = 1
# Files that a run can leave before it writes its record.
_EARLY = {'.lock', 'log.txt'}
# What a begun training cannot change.
_FIXED = ('arch', 'init', 'init_partial')


class RunFolder:
    """Paths below the output folder of a run; the folder may not exist."""

    def __init__(self, out: PathLike) -> None:
        self.path = path = Path(os.path.abspath(out))
        self.config = path / 'config.py'
        self.init = path / 'init.pth'
        self.images = path / 'images.json'
        self.proposals = path / 'proposals.npz'
        self.unreadable = path / 'unreadable.txt'
        self.views = path / 'views.png'
        self.log = path / 'log.txt'
        self.losses = path / 'losses.png'
        self.checkpoints = path / 'checkpoints'
        self.backbone = path / 'backbone.pth'
        self.report = path / 'report.html'
        self.record = path / 'run.json'

    def has_begun(self) -> bool:
        """Return True if there is a checkpoint."""
        return any(self.checkpoints.glob('*.pth'))

    def latest(self) -> tuple[Optional[str], int]:
        """Return the latest checkpoint, if any, and its finished epochs."""
        path, _ = latest_checkpoint(str(self.checkpoints))
        if path is None:
            return None, 0
        return path, load(path, only_structure=True)['meta']['epoch']


def read_record(run: RunFolder) -> Optional[dict]:
    """Return the record of an earlier call, or None for a new folder.

    Raises:
        ValueError: The folder has other content, or its record is damaged.
    """
    if not run.record.exists():
        others = sorted({x.name for x in run.path.iterdir()
                         if not x.name.endswith('.part')} - _EARLY
                        ) if run.path.is_dir() else []
        if others:
            raise ValueError(
                f"--out '{printable(run.path)}' has other content "
                f'({printable(others[0])}, ...): choose a new or empty folder')
        return None
    try:
        record = read_json(run.record)
    except (OSError, ValueError) as e:
        raise ValueError(f"'{printable(run.record)}' cannot be read "
                         f'({printable(e)}): choose another --out') from None
    if (not isinstance(record, dict) or record.get('version') != VERSION
            or not isinstance(record.get('request'), dict)):
        raise ValueError(
            f"'{printable(run.record)}' is not the record of a run of this "
            'version: choose another --out')
    return record


def write_record(run: RunFolder, record: dict[str, Any]) -> None:
    """Write the record, whose ``request`` has the options of the call."""
    with atomic_write(run.record, 'w') as file:
        json.dump({**record, 'version': VERSION}, file, indent=1)


def check_same_run(run: RunFolder, earlier: dict, request: dict,
                   images: str, resume: bool) -> None:
    """Raise ValueError if a begun training has other options or images.

    With ``resume``, only what a network cannot change is refused.
    """
    changed = {
        name: (earlier['request'].get(name), value)
        for name, value in request.items()
        if earlier['request'].get(name) != value}
    fixed = [name for name in changed if name in _FIXED]
    if not changed and earlier.get('images') == images:
        return
    if resume and not fixed:
        return
    facts = [f'--{name.replace("_", "-")} {_text(old)}, now {_text(new)}'
             for name, (old, new) in changed.items()]
    if earlier.get('images') != images:
        facts.append('other images')
    cure = 'choose another --out' if fixed else (
        'repeat the earlier options, choose another --out, or add --resume '
        'to go on with the new options and images')
    raise ValueError(f"--out '{printable(run.path)}' has a training with "
                     f'{"; ".join(facts)}: {cure}')


def check_same_folder(run: RunFolder, earlier: dict, folder: str,
                      images: Sequence[dict], resume: bool) -> None:
    """Raise ValueError if results of another folder would be used.

    The boxes of an image are found by its file name. If the images have
    moved, ``resume`` allows that; not if their sizes have changed too.
    """
    before = earlier.get('folder')
    if before in (None, os.path.realpath(folder)):
        return
    facts = (f"--out '{printable(run.path)}' has results of images below "
             f"'{printable(before)}', now '{printable(folder)}'")
    if not resume:
        raise ValueError(f'{facts}: choose another --out, or add --resume if '
                         'the images have moved')
    sizes = {x['file_name']: _size_of(x) for x in _known_images(run)}
    for image in images:
        if sizes.get(image['file_name'], _size_of(image)) != _size_of(image):
            raise ValueError(
                f"{facts}, where '{printable(image['file_name'])}' has "
                'another size: choose another --out')


def _known_images(run: RunFolder) -> list[dict]:
    try:
        return read_json(run.images)['images']
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _size_of(image: dict) -> tuple:
    return image.get('width'), image.get('height')


def digest_of_images(images: Sequence[dict]) -> str:
    """Return a digest of file names and sizes, in any order.

    An image that cannot be read has another id in each call.
    """
    names = json.dumps(sorted(
        [x['file_name'], *map(str, _size_of(x))] for x in images))
    return f'{len(images)}:{hashlib.sha256(names.encode()).hexdigest()[:16]}'


def _text(value: object) -> str:
    return excerpt(value).strip("'\"")
