"""Checks that a pixel cache has the images of a data set."""
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmengine.logging import print_log

from ..io.coco_json import image_path
from ..io.pixel_cache import Entry, PixelCache, is_source_of, source_stat
from ..utils.text import printable

CHECKED = 1000  # files
_THREADS = 16  # a network file system answers slowly
_CURE = 'run tools/cache_pixels.py again with this ann_file'


def check_cache_options(transforms: Sequence[Any], number: int,
                        folder: str, local: bool) -> None:
    """Check that the caches in the loaders of a pipeline can be used.

    Transforms with an attribute ``caches`` are checked.

    Args:
        transforms (Sequence): The pipeline.
        number (int): Number of jsons in the data set.
        folder (str): Folder of the images, for the message.
        local (bool): The images are on the local disk.

    Raises:
        ValueError: A loader has not one cache for each json, or the images
            are not on the local disk.
    """
    for transform in transforms:
        caches = getattr(transform, 'caches', ())
        if caches and len(caches) != number:
            raise ValueError(
                f'{type(transform).__name__}.cache and ann_file have '
                f'{len(caches)} and {number} entries: set one cache, or None, '
                'for each ann_file')
        used = [x.path for x in caches if x is not None]
        if used and not local:
            raise ValueError(
                f"the pixel cache '{used[0]}' needs images on the "
                f"local disk, but they are at '{folder}': remove cache of "
                'LoadEncodedImage, or copy the images')


def check_caches(transforms: Sequence[Any], source: int,
                 images: Sequence[dict], folder: str, ann_file: str) -> None:
    """Check the caches of one json in the loaders of a pipeline.

    Args:
        transforms (Sequence): The pipeline.
        source (int): Number of the json.
        images (Sequence[dict]): ``images`` of the json.
        folder (str): Folder of the images.
        ann_file (str): The json, for messages.

    Raises:
        ValueError: A cache is damaged, out of date, or has other images.
        FileNotFoundError: A cache is missing.
    """
    for transform in transforms:
        caches = getattr(transform, 'caches', ())
        cache = caches[source] if caches else None
        if cache is None:
            continue
        cache.check()
        found = _check_names(cache, images, ann_file)
        _check_files(cache, images, folder)
        print_log(
            f"the pixel cache '{printable(cache.path)}' has {found} of "
            f"{len(images)} images of '{printable(ann_file)}'",
            logger='current')


def _check_names(cache: PixelCache, images: Sequence[dict],
                 ann_file: str) -> int:
    """Raise ValueError if ids belong to files of other names.

    Returns:
        int: Number of images in the cache.
    """
    found = 0
    for image in images:
        entry = cache.entry(image['id'])
        if entry is None:
            continue
        if entry.name != image['file_name']:
            raise ValueError(
                f"the pixel cache '{cache.path}' was made for other images: "
                f"id {image['id']} is '{entry.name}' there, but "
                f"'{image['file_name']}' in '{ann_file}'; {_CURE}")
        found += 1
    if not found:
        raise ValueError(f"the pixel cache '{cache.path}' has none of the "
                         f"{len(images)} images of '{ann_file}': {_CURE}")
    return found


def _check_files(cache: PixelCache, images: Sequence[dict],
                 folder: str) -> None:
    """Raise ValueError if image files have changed since they were cached.

    At most ``CHECKED`` files are compared, at equal distances in the list. A
    missing file passes: the training reports it.
    """
    entries = list(filter(None, (
        cache.entry(image['id'])
        for image in images[::-(-len(images) // CHECKED)])))
    with ThreadPoolExecutor(_THREADS) as pool:
        changed = [entry for entry, differs in zip(entries, pool.map(
            lambda x: _has_changed(x, folder), entries)) if differs]
    if changed:
        raise ValueError(
            f"the pixel cache '{cache.path}' is out of date: {len(changed)} "
            f"of {len(entries)} files below '{folder}' have changed (the "
            f"first: '{changed[0].name}'); {_CURE}")


def _has_changed(entry: Entry, folder: str) -> bool:
    path = image_path(folder, entry.name)
    try:
        source_stat(path)
    except OSError:
        return False
    return not is_source_of(entry, path)
