"""The list of images of a folder without a json."""
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ..utils.progress import track
from ..utils.text import printable
from .atomic import PathLike
from .files import NotRegularError
from .images import read_size

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


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
