"""The list of images of a COCO json, or of a folder without a json."""
import hashlib
import json
import logging
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..utils.progress import track
from ..utils.text import excerpt, printable
from .atomic import PathLike
from .files import NotRegularError, read_json
from .images import read_size

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def read_coco(ann_file: PathLike) -> dict:
    """Read a COCO json and check its list of images.

    A file name with ``..`` is normalized, so that it does not depend on the
    target of a symbolic link.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a COCO json, an image id is not an integer
            or not unique, or a file name points outside the image folder.
    """
    path = Path(ann_file)
    if not path.exists():
        raise FileNotFoundError(f"no annotation file '{path}': check ann_file "
                                'and data_root')
    try:
        content = read_json(path)
        images = content['images']
        ids = {image['id'] for image in images if image['file_name']}
    except (NotRegularError, ValueError, KeyError, TypeError) as e:
        raise ValueError(
            f"'{path}' is not a COCO json ({type(e).__name__}: {e}): it needs "
            "'images', each with 'id' and 'file_name'") from None
    if not ids:
        raise ValueError(f"'{path}' lists no image")
    for image_id in ids:
        if type(image_id) is not int or not -2**63 <= image_id < 2**63:
            raise ValueError(f"'{path}' has the image id {excerpt(image_id)}: "
                             'ids must be integers of at most 64 bits')
    if len(ids) != len(images):
        raise ValueError(f"'{path}' lists {len(images)} images with only "
                         f'{len(ids)} different ids: ids must be unique')
    for image in images:
        image['file_name'] = _checked_file_name(image, path)
    return content


def _checked_file_name(image: dict, path: Path) -> str:
    name = image['file_name']
    if not isinstance(name, str):
        raise ValueError(f"'{path}' has for image id {image['id']} the "
                         f'file_name {excerpt(name)}: it must be a string')
    # Fast path: COCO lists 118,287 images.
    if '..' not in name and ':' not in name and name[0] not in '/\\':
        return name
    parts = name.replace('\\', '/')
    plain = posixpath.normpath(parts)
    if (parts.startswith('/') or plain.split('/')[0] == '..'
            or '://' in name or re.match('[A-Za-z]:', name)):
        raise ValueError(
            f"'{path}' has for image id {image['id']} the file_name "
            f"'{name}', which points outside the image folder: it must be a "
            'path below the folder')
    return plain if '..' in parts.split('/') else name


def digest_of(images: Sequence[dict]) -> str:
    """Return a digest of the ids and file names, equal for equal images."""
    names = sorted((image['id'], image['file_name']) for image in images)
    text = json.dumps(names)
    return f'{len(images)}:{hashlib.sha256(text.encode()).hexdigest()[:16]}'


def list_folder(folder: PathLike) -> dict:
    """List the images of a folder and its subfolders as in a COCO json.

    The images are ordered by name and numbered from 1. Symbolic links to
    folders are followed, but no folder is listed twice. An image with an
    unreadable header is listed without its size. Pipes and devices with the
    name of an image are skipped, and their number is logged.

    Returns:
        dict: ``images`` with ``id``, ``file_name``, ``width`` and ``height``,
        and empty ``annotations`` and ``categories``.

    Raises:
        FileNotFoundError: The folder has no image.
    """
    folder = Path(folder)
    images: list[dict] = []
    not_regular = []
    for path in track(sorted(_find_images(folder)), desc='listing'):
        name = path.relative_to(folder).as_posix()
        try:
            size = read_size(path) or ()
        except NotRegularError:
            not_regular.append(name)
            continue
        images.append(dict(id=len(images) + 1, file_name=name,
                           **dict(zip(('width', 'height'), size))))
    if not_regular:
        logging.getLogger(__name__).warning(
            f"skipped {len(not_regular)} paths below '{printable(folder)}' "
            'that have the name of an image but are not regular files (the '
            f"first: '{printable(not_regular[0])}')")
    if not images:
        raise FileNotFoundError(
            f"no image below '{folder}': check the path; names must end in "
            f'{", ".join(IMAGE_SUFFIXES)}')
    return dict(images=images, annotations=[], categories=[])


def _find_images(folder: Path) -> Iterator[Path]:
    """Yield the paths with the suffix of an image, without endless loops."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:  # reached by a link
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Of several links to a folder, the first in order is used.
        folders.sort()
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(parent, name)
