"""Checks before a search of everything that its end needs."""
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ..io.archive import cure_of_folder, is_file, report_archive
from ..io.atomic import PathLike
from ..io.coco_json import image_path, sample_images
from ..io.files import read_json
from ..io.outputs import check_output_file
from ..utils.errors import warn
from ..utils.text import excerpt
from .earlier import path_of_searched
from .journal import journal_folder
from .proposal_file import check_path
from .result import path_of_unreadable

# Bytes of a box in the journal and in the file, and the smallest expected
# number of boxes. COCO's images have about 100.
_BYTES_PER_BOX, _BOXES_PER_IMAGE = 28, 50


def check_images(images: Sequence[dict]) -> None:
    """Raise ValueError if the proposal file cannot store an id or a name."""
    ids = set()
    for image in images:
        image_id, name = image.get('id'), image.get('file_name')
        if type(image_id) is not int or not -2**63 <= image_id < 2**63:
            raise ValueError(f'images has the id {excerpt(image_id)}: ids '
                             'must be of type int, with at most 64 bits')
        if image_id in ids:
            raise ValueError(f'images has the id {image_id} more than once: '
                             'ids must be unique')
        if not isinstance(name, str) or not name:
            raise ValueError(f'images has for the id {image_id} the file_name '
                             f'{excerpt(name)}: it must be a string')
        ids.add(image_id)


def check_outputs(out: PathLike, list_file: Optional[PathLike] = None) -> None:
    """Create the folder of ``out``, and check that all files can be written.

    ``list_file`` is the list of a folder's images, if the search writes it.

    Raises:
        ValueError: ``out`` does not end in .npz, is a folder or a device, or
            a file cannot be written there; or ``list_file`` is a json with
            annotations, which the search would replace.
    """
    out = check_path(out)
    paths = [out, path_of_searched(out), path_of_unreadable(out, list_file)]
    if list_file is not None:
        paths.append(Path(list_file))
        _check_own_list(Path(list_file))
    if (folder := journal_folder(out)).is_file():
        raise ValueError(f"'{folder}' must be a folder, for unfinished "
                         'searches: remove this file, or choose another --out')
    for path in paths:
        if path.exists() and not path.is_file():
            raise ValueError(f"cannot write '{path}', which is a folder or "
                             'not a regular file: choose another --out')
        check_output_file(path, '--out')


def _check_own_list(path: Path) -> None:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return
    if not isinstance(content, dict) or any(
            content.get(x) for x in ('annotations', 'categories')):
        raise ValueError(
            f"the list of images would replace '{path}', which has other "
            'content: pass that file as --ann-file, or choose another --out')


def check_disk_space(out: Path, number: int, top_n: Optional[int]) -> None:
    """Raise ValueError if the disk is certainly too full for the results.

    ``number`` is the number of images to search.
    """
    boxes = min(top_n or _BOXES_PER_IMAGE, _BOXES_PER_IMAGE)
    needed = number * boxes * _BYTES_PER_BOX
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise ValueError(
            f"the disk of '{out}' has {free / 1e6:.1f} MB free, but the "
            f'proposals of {number} images need at least {needed / 1e6:.1f} '
            'MB: free disk space, or choose another --out')


def check_folder(folder: PathLike, images: Sequence[dict]) -> None:
    """Raise ValueError if none of about ten images exists in the folder.

    A damage of an archive is only reported.
    """
    report_archive(folder, warn)
    sample = sample_images(images)
    paths = [image_path(folder, image['file_name']) for image in sample]
    if paths and not any(
            os.path.lexists(path) or is_file(path) for path in paths):
        name = sample[0]['file_name']
        raise ValueError(
            f"none of {len(sample)} images that were tried is below "
            f"'{folder}' (for example '{name}'): "
            + cure_of_folder(folder, name, '--img-prefix'))
