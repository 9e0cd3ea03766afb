"""The list of images of a COCO json, or of a folder that has none."""
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from ..utils.progress import track

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def read_coco(ann_file: Union[str, os.PathLike]) -> dict:
    """A COCO json, with ``images`` that have ``id`` and ``file_name``.

    A file name with ``..`` in it comes back without: what the json says is
    not to depend on where a link leads.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no COCO json, or a file name leads out of the folder
            of the images.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file '{path}': check "
                                'ann_file and data_root')
    try:
        content = json.loads(path.read_bytes())
        images = content['images']
        ids = {image['id'] for image in images if image['file_name']}
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(
            f"'{path}' is not a COCO json ({type(e).__name__}: {e}): it needs "
            "'images', each with 'id' and 'file_name'") from None
    if not ids:
        raise ValueError(f"'{path}' lists no image")
    for image_id in ids:
        if not isinstance(image_id, int):
            raise ValueError(f"'{path}' has the image id {image_id!r}: ids "
                             'must be whole numbers')
    if len(ids) != len(images):
        raise ValueError(f"'{path}' lists {len(images)} images with only "
                         f'{len(ids)} different ids: each needs its own')
    for image in images:
        image['file_name'] = _inside(image, path)
    return content


def _inside(image: dict, path: Path) -> str:
    """The file name of an image, below the folder of the images."""
    name = image['file_name']
    if not isinstance(name, str):
        raise ValueError(f"'{path}' has for image id {image['id']} the "
                         f'file_name {name!r}: it must be a text')
    if '..' not in name and ':' not in name and name[0] not in '/\\':
        return name
    parts = name.replace('\\', '/')
    plain = posixpath.normpath(parts)
    if (parts.startswith('/') or plain.split('/')[0] == '..'
            or '://' in name or re.match('[A-Za-z]:', name)):
        raise ValueError(
            f"'{path}' has for image id {image['id']} the file_name "
            f"'{name}', which leads out of the folder of the images: it must "
            'be a path below it')
    return plain if '..' in parts.split('/') else name


def digest_of(images: Sequence[dict]) -> str:
    """Tells whether two lists are of the same images."""
    names = sorted((image['id'], image['file_name']) for image in images)
    text = json.dumps(names)
    return f'{len(images)}:{hashlib.sha256(text.encode()).hexdigest()[:16]}'


def list_folder(folder: Union[str, os.PathLike]) -> dict:
    """A COCO json's content for a folder of images: the files below it in
    the order of their names, with ids from 1. Sizes come from the headers,
    which a progress bar accompanies. Links to folders are followed.

    Raises:
        FileNotFoundError: The folder holds no image.
    """
    from PIL import Image, ImageOps
    folder = Path(folder)
    paths = sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names if name.lower().endswith(IMAGE_SUFFIXES))
    if not paths:
        raise FileNotFoundError(
            f"there is no image below '{folder}': it needs files ending in "
            f'{", ".join(IMAGE_SUFFIXES)}')
    images = []
    for number, path in enumerate(track(paths, desc='listing'), 1):
        image = dict(id=number, file_name=path.relative_to(folder).as_posix())
        try:
            with Image.open(path) as opened:
                width, height = opened.size
                if opened.getexif().get(ImageOps.ExifTags.Base.Orientation,
                                        1) > 4:
                    width, height = height, width
            image.update(width=width, height=height)
        except (OSError, Image.DecompressionBombError):
            pass  # told as unreadable when its pixels are needed
        images.append(image)
    return dict(images=images, annotations=[], categories=[])
