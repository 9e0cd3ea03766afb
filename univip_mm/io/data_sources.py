"""The images of folders, archives and COCO jsons, as one list."""
import os
import os.path as osp
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

from ..utils.errors import warn
from ..utils.text import printable
from .archive import is_file
from .atomic import PathLike
from .coco_json import image_path, read_coco, sample_images
from .image_folder import list_folder
from .urls import check_not_url

Source = Union[PathLike, tuple[PathLike, PathLike]]
HOW = ('give a folder of images, a .zip or .tar of images, or a COCO json '
       'with the folder of its images as JSON:FOLDER')


class Sources(NamedTuple):
    """List of images.

    Attributes:
        folder (str): Absolute path of the folder that all file names are
            below. The folder can be in an archive.
        images (list[dict]): As ``images`` of a COCO json: ``id``, from 1,
            ``file_name``, and ``width`` and ``height`` if they are known.
    """
    folder: str
    images: list[dict]


def read_sources(data: Union[Source, Sequence[Source]]) -> Sources:
    """List the images of one or several sources.

    A source is a folder with its subfolders, an archive, or a COCO json with
    the folder of its images: a pair (json, folder), the text
    ``JSON:FOLDER``, or a json beside its images. A file that is listed more
    than once is used once, and a warning counts these files.

    Raises:
        FileNotFoundError: A source does not exist, or has no image.
        ValueError: A source is of another kind, or its json is invalid.
    """
    sources = as_list(data)
    if not sources:
        raise ValueError(f'there is no source of images: {HOW}')
    lists = [_read_source(source) for source in sources]
    folder = osp.commonpath([folder for folder, _ in lists])
    joined: dict[str, dict] = {}
    for own, images in lists:
        below = osp.relpath(own, folder)
        for image in images:
            name = osp.normpath(osp.join(below, image['file_name']))
            joined.setdefault(name, dict(
                image, id=len(joined) + 1, file_name=name))
    if repeated := sum(len(images) for _, images in lists) - len(joined):
        warn(f'{repeated} images are listed more than once, and are used '
             'once')
    return Sources(folder, list(joined.values()))


def as_list(data: Union[Source, Sequence[Source]]) -> list[Source]:
    """Return the sources of an argument that can be a single one."""
    is_single = isinstance(data, (str, os.PathLike, tuple))
    return [data] if is_single else list(data)  # type: ignore


def check_outside(path: PathLike, option: str,
                  data: Union[Source, Sequence[Source]]) -> None:
    """Raise ValueError if an output folder is in a folder to be listed.

    The pictures in it would be listed as images of the data set.
    """
    for source in as_list(data):
        if isinstance(source, tuple) or not osp.isdir(source):
            continue
        folder = osp.realpath(source)
        if osp.commonpath([folder, osp.realpath(path)]) == folder:
            raise ValueError(
                f"{option} '{printable(path)}' is inside of the images "
                f"'{printable(source)}', so its pictures would become images "
                'of the next call: choose a folder outside')


def _read_source(source: Source) -> Sources:
    """List the images of one source."""
    json: Optional[str]
    folder: Optional[str]
    if isinstance(source, tuple):
        json, folder = str(source[0]), str(source[1])
    else:
        json, folder = _split(os.fspath(source))
    if json is None:
        assert folder is not None
        check_not_url(folder, 'DATA')
        if not osp.exists(folder) and not osp.dirname(folder):
            raise FileNotFoundError(
                f"there is no folder '{printable(folder)}' here "
                f"('{os.getcwd()}'): {HOW}")
        return Sources(osp.abspath(folder), list_folder(folder)['images'])
    check_not_url(json, 'DATA')
    images = [
        dict(id=number, **{key: image[key] for key in
                           ('file_name', 'width', 'height') if key in image})
        for number, image in enumerate(read_coco(json)['images'], 1)]
    if folder is None:
        folder = _find_folder(json, images)
    check_not_url(folder, 'DATA')
    if not _has_images(folder, images):
        raise FileNotFoundError(
            f"no image of '{printable(json)}' is below '{printable(folder)}' "
            f"(for example '{printable(images[0]['file_name'])}'): check the "
            'folder in JSON:FOLDER')
    return Sources(osp.abspath(folder), images)


def _split(source: str) -> tuple[Optional[str], Optional[str]]:
    """Return the json and the folder of a text; None if it has none."""
    if source.lower().endswith('.json') and not osp.isdir(source):
        return source, None
    json, colon, folder = source.partition('.json:')
    if colon and not osp.exists(source):
        return f'{json}.json', folder
    return None, source


def _find_folder(json: str, images: Sequence[dict]) -> str:
    """Return the folder of the images, for the usual layouts.

    COCO has ``annotations/instances_train2017.json`` beside ``train2017/``.
    """
    parent = Path(json).absolute().parent
    name = Path(json).stem
    split = name.rpartition('_')[2]
    candidates = [base / below for base in (parent, parent.parent)
                  for below in ('', 'images', name, split, f'images/{split}')]
    for candidate in candidates:
        if _has_images(candidate, images):
            return str(candidate)
    raise ValueError(
        f"the images of '{printable(json)}' (for example "
        f"'{printable(images[0]['file_name'])}') are not beside it: write "
        f'{printable(json)}:FOLDER')


def _has_images(folder: PathLike, images: Sequence[dict]) -> bool:
    """Return True if one of about ten images is below the folder."""
    return any(is_file(image_path(folder, image['file_name']))
               for image in sample_images(images))
