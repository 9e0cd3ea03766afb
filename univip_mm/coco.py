"""The list of images of a COCO json, or of a folder that has none."""
import json
import os
from pathlib import Path
from typing import Union

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def read_coco(ann_file: Union[str, os.PathLike]) -> dict:
    """A COCO json, with ``images`` that have ``id`` and ``file_name``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no COCO json.
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
    if len(ids) != len(images):
        raise ValueError(f"'{path}' lists {len(images)} images with only "
                         f'{len(ids)} different ids: each needs its own')
    return content


def list_folder(folder: Union[str, os.PathLike]) -> dict:
    """A COCO json's content for a folder of images: the files below it in
    the order of their names, with ids from 1. Sizes come from the headers.

    Raises:
        FileNotFoundError: The folder holds no image.
    """
    from PIL import Image, ImageOps
    folder = Path(folder)
    paths = sorted(
        path for path in folder.rglob('*')
        if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(
            f"there is no image below '{folder}': it needs files ending in "
            f'{", ".join(IMAGE_SUFFIXES)}')
    images = []
    for number, path in enumerate(paths, 1):
        image = dict(id=number, file_name=path.relative_to(folder).as_posix())
        try:
            with Image.open(path) as opened:
                width, height = opened.size
                if opened.getexif().get(ImageOps.ExifTags.Base.Orientation,
                                        1) > 4:
                    width, height = height, width
            image.update(width=width, height=height)
        except OSError:
            pass  # told as unreadable when its pixels are needed
        images.append(image)
    return dict(images=images, annotations=[], categories=[])
