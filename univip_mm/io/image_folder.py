"""The list of images of a folder without a json."""
import logging
import os
import os.path as osp
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Optional

import cv2
import numpy as np

from ..utils.progress import track
from ..utils.text import printable
from .archive import open_archive, split_path
from .atomic import PathLike
from .coco_json import points_outside
from .files import NotRegularError
from .images import decode_image, read_size

# Suffixes of files by the suffix that OpenCV encodes. Some builds of OpenCV
# lack some of the last three formats.
FORMATS = {
    '.jpg': ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo'),
    '.png': ('.png', '.apng'), '.bmp': ('.bmp', '.dib'), '.webp': ('.webp', ),
    '.tif': ('.tif', '.tiff'), '.ppm': ('.ppm', '.pgm', '.pbm', '.pnm'),
    '.ras': ('.ras', '.sr'), '.gif': ('.gif', ), '.avif': ('.avif', ),
    '.jp2': ('.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx')}
_FORMAT_OF = {suffix: name for name, suffixes in FORMATS.items()
              for suffix in suffixes}
_NOT_DECODED = {
    '.heic', '.heif', '.hif', '.jxl', '.exr', '.hdr', '.tga', '.psd', '.svg',
    '.dng', '.cr2', '.cr3', '.nef', '.arw'}
# Folders of NAS systems, Windows, macOS and file systems, with thumbnails,
# deleted files and copies. Lower case.
SYSTEM_FOLDERS = {'@eadir', '@tmp', '#recycle', '#snapshot', '$recycle.bin',
                  '__macosx', 'system volume information', 'lost+found'}
# Files of an output folder of `univip pretrain`, whose pictures of views and
# charts are no images to train on; and the log folder of MMEngine.
_RUN_FILES = ('run.json', 'config.py')
_LOG_FOLDER = 'vis_data'
_OUTPUT = 'paths with the output of a training'
_MAX_SUFFIXES = 6


class _LeftOut:
    """Numbers of the paths that a listing leaves out, by reason."""

    def __init__(self) -> None:
        self._numbers: Counter = Counter()
        self._first: dict[str, str] = {}

    def add(self, reason: str, name: str) -> None:
        """Count a path; ``reason`` is a suffix or a plural noun."""
        self._numbers[reason] += 1
        self._first.setdefault(reason, name)

    def __str__(self) -> str:
        """Describe all reasons and the most frequent suffixes; '' if none."""
        texts, suffixes = [], []
        for reason, number in self._numbers.most_common():
            text = f'{number} {printable(reason)}'
            if reason[0] == '.':
                suffixes.append((text, number))
            else:
                first = printable(self._first[reason])
                texts.append(f"{text} (first: '{first}')")
        texts += [text for text, _ in suffixes[:_MAX_SUFFIXES]]
        if others := sum(number for _, number in suffixes[_MAX_SUFFIXES:]):
            texts.append(f'{others} with other suffixes')
        return ', '.join(texts)


def list_folder(folder: PathLike) -> dict:
    """List the images of a folder and its subfolders as in a COCO json.

    Listed are the files with a suffix in ``FORMATS``, if this build of OpenCV
    decodes the format. The images are ordered by name and numbered from 1. An
    image with an unreadable header is listed without its size.

    ``folder`` can be an archive, or a folder in it.

    Symbolic links are followed, but not to a folder that contains them, and
    no folder or linked file is listed twice. Hidden files and folders,
    ``SYSTEM_FOLDERS``, other suffixes, and paths that are not regular files
    are left out. So are subfolders with the output of a training: those with
    ``run.json`` and ``config.py``, and those named ``vis_data``. One line of
    the log counts all that is left out.

    Returns:
        dict: ``images`` with ``id``, ``file_name``, ``width`` and ``height``,
        and empty ``annotations`` and ``categories``.

    Raises:
        FileNotFoundError: The folder cannot be opened, or has no image.
    """
    folder = os.fspath(folder)
    in_archive = split_path(folder) is not None
    try:
        if not in_archive:
            os.scandir(folder).close()
    except OSError as e:
        raise FileNotFoundError(f"the image folder '{folder}' cannot be "
                                f'opened ({e.strerror}): check the path'
                                ) from None
    left_out = _LeftOut()
    images: list[dict] = []
    find = _find_archived if in_archive else _find_images
    names = find(folder, left_out)
    for name in track(sorted(names, key=_parts), desc='listing'):
        try:
            size = read_size(osp.join(folder, name)) or ()
        except NotRegularError:
            left_out.add('not regular files', name)
            continue
        images.append(dict(id=len(images) + 1, file_name=name,
                           **dict(zip(('width', 'height'), size))))
    text = str(left_out)
    if not images:
        raise FileNotFoundError(
            f"no image below '{folder}'{text and f', only {text}'}: check the "
            f'path; names must end in {", ".join(_FORMAT_OF)}')
    if text:
        logging.getLogger(__name__).warning(
            f"listed {len(images)} images of '{printable(folder)}'; left out: "
            f'{text}')
    return dict(images=images, annotations=[], categories=[])


def _parts(name: str) -> list[str]:
    return name.split('/')


def _find_images(folder: str, left_out: _LeftOut) -> Iterator[str]:
    """Yield the images below a folder, relative to it.

    Each real folder is visited once. Of several links to a folder, the first
    in the order of the names is used.
    """
    todo = [('', osp.realpath(folder))]
    visited, linked = set(), []
    while todo:
        parent, real = todo.pop()
        if real in visited:
            left_out.add('folders listed under another name', parent)
            continue
        visited.add(real)
        subfolders = []
        for entry in _open_folder(folder, parent, left_out):
            name = osp.join(parent, entry.name)
            target = osp.join(real, entry.name)
            if entry.is_symlink():
                target = osp.realpath(target)
            if _is_folder(entry):
                if reason := _reason_against_folder(entry, real, target):
                    left_out.add(reason, name)
                else:
                    subfolders.append((name, target))
            elif points_outside(name) or '..' in name.split('\\'):
                # read_coco() refuses or changes C:x, \x, ..\x and a\..\x.
                left_out.add('names like a path outside the folder', name)
            elif reason := _reason_against_file(entry.name):
                is_broken = entry.is_symlink() and not osp.exists(target)
                left_out.add('broken links' if is_broken else reason, name)
            elif entry.is_symlink() and osp.exists(target):
                linked.append((name, target))
            else:
                yield name
        todo += reversed(subfolders)
    yield from _linked_images(linked, visited, left_out)


def _find_archived(folder: str, left_out: _LeftOut) -> Iterator[str]:
    """Yield the images in an archive below ``folder``, relative to it."""
    archive, below = split_path(folder) or (folder, '')
    start = f'{below}/' if below else ''
    names = [name[len(start):] for name in open_archive(archive).names()
             if name.startswith(start)]
    outputs = set.intersection(*(
        {osp.dirname(x) for x in names if osp.basename(x) == file}
        for file in _RUN_FILES)) - {''}
    for name in names:
        *parents, own_name = _parts(name)
        if any(part[:1] == '.' or part.lower() in SYSTEM_FOLDERS
               for part in parents):
            left_out.add('hidden or system paths', name)
        elif _LOG_FOLDER in parents or any(
                name.startswith(f'{folder}/') for folder in outputs):
            left_out.add(_OUTPUT, name)
        elif points_outside(name) or '..' in re.split(r'[/\\]', name):
            left_out.add('names like a path outside the folder', name)
        elif reason := _reason_against_file(own_name):
            left_out.add(reason, name)
        else:
            yield name


def _linked_images(linked: list[tuple[str, str]], visited: set[str],
                   left_out: _LeftOut) -> Iterator[str]:
    """Yield the linked images that are not listed under another name."""
    targets: set[str] = set()
    for name, target in linked:
        parent, own_name = osp.split(target)
        if target in targets or (
                parent in visited and not _reason_against_file(own_name)):
            left_out.add('links to images listed under another name', name)
        else:
            targets.add(target)
            yield name


def _open_folder(folder: str, name: str,
                 left_out: _LeftOut) -> list[os.DirEntry]:
    """Return the entries of a subfolder, ordered by name."""
    try:
        with os.scandir(osp.join(folder, name)) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as e:
        left_out.add(f'folders that cannot be opened, {e.strerror}', name)
        return []


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder without permission
        return False


def _reason_against_folder(entry: os.DirEntry, real: str,
                           target: str) -> Optional[str]:
    """Return why a folder is not visited, or None.

    ``real`` is the real path of the parent, ``target`` that of the folder.
    """
    if entry.name[0] == '.' or entry.name.lower() in SYSTEM_FOLDERS:
        return 'hidden or system paths'
    if osp.join(real, '').startswith(osp.join(target, '')):
        return 'links to a parent folder'
    if entry.name == _LOG_FOLDER or all(
            osp.isfile(osp.join(target, name)) for name in _RUN_FILES):
        return _OUTPUT
    return None


def _reason_against_file(name: str) -> Optional[str]:
    """Return why a file with this name is not listed, or None."""
    if name[0] == '.':
        return 'hidden or system paths'
    suffix = osp.splitext(name)[1].lower()
    if _FORMAT_OF.get(suffix) and _is_decoded(_FORMAT_OF[suffix]):
        return None
    if suffix in _FORMAT_OF or suffix in _NOT_DECODED:
        return f'{suffix} (the decoder cannot read them)'
    return suffix or 'without suffix'


@cache
def _is_decoded(suffix: str) -> bool:
    """Return True if this build of OpenCV decodes what it encodes."""
    try:
        encoded = cv2.imencode(suffix, np.zeros((64, 64, 3), np.uint8))[1]
        decode_image(encoded.tobytes())
    except Exception:  # also of cv2, for a format that it does not know
        return False
    return True
