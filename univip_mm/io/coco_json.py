"""The list of images of a COCO json."""
import hashlib
import json
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from ..utils.text import excerpt
from .atomic import PathLike
from .files import NotRegularError, read_json


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
