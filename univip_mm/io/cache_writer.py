"""Make a pixel cache of a data set, in parallel and resumable."""
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np

from ..utils.parallel import map_unordered, number_of_workers
from ..utils.progress import track
from ..utils.text import size_text
from .atomic import PathLike, replace_durably
from .cache_journal import CacheJournal
from .coco_json import image_path
from .encoded_image import EncodedImage
from .images import (
    NOT_READ,
    UnreadableImageError,
    read_bytes,
    read_size,
    reason_of,
)
from .outputs import check_output_file
from .pixel_cache import (
    ALIGNMENT,
    Entry,
    PixelCache,
    Source,
    aligned,
    digest_of_file,
    is_pixel_cache,
    source_stat,
    updated,
    write_index,
)

_LARGER = 'more pixels than its json says, so not cached'
_THREADS = 16  # a network file system answers slowly
_UNUSED = 0.1  # largest share of the file that no image uses


class CacheOutcome(NamedTuple):
    """Numbers of images of a cache, and the unreadable images.

    Attributes:
        decoded (int): Number of images decoded now.
        copied (int): Number of images copied from the earlier cache.
        found_before (int): Number of images of the interrupted call.
        total (int): Number of images in the cache.
        dropped (int): Number of images of the earlier cache or of the
            interrupted call that are no longer wanted.
        unreadable (dict[str, str]): Reasons by file name.
    """
    decoded: int
    copied: int
    found_before: int
    total: int
    dropped: int
    unreadable: dict[str, str]


class _Task(NamedTuple):
    """Image to cache, and the expected bytes of its pixels."""
    image_id: int
    name: str
    path: str
    size: int
    is_limited: bool  # to the expected size


class _Done(NamedTuple):
    """Result of a task: an entry, or the reason why there is none."""
    entry: Optional[Entry]
    copied: bool = False
    problem: str = ''


class _Writer(NamedTuple):
    """Place of the pixels, for the worker processes.

    ``lock`` is a local file, because a network disk may have no locks.
    """
    pixels: str
    lock: str
    earlier: Optional[PixelCache]


def cache_pixels(images: Sequence[dict], img_prefix: PathLike, out: PathLike,
                 max_bytes: Optional[int] = None,
                 workers: Optional[int] = None) -> CacheOutcome:
    """Decode all images and write the pixel cache, with a progress bar.

    A killed call is resumed from ``OUT.parts`` by the same call. Images of an
    earlier cache ``out`` are copied if their files are unchanged: the same
    size, and the same time of change or the same content. Unreadable images
    are not in the cache; they are tried again by the next call.

    Args:
        images (Sequence[dict]): ``images`` of the COCO json.
        img_prefix (str or PathLike): Folder of the images.
        out (str or PathLike): The cache. If it already has these images and
            their files are unchanged, at most the times of the files are
            updated.
        max_bytes (int, optional): Largest size of the pixels. The first
            images of the list are cached. Defaults to None, no limit.
        workers (int, optional): Worker processes. Defaults to None, one per
            usable core.

    Raises:
        ValueError: ``out`` cannot be written or has other content, another
            process writes it, the disk is too full, or no image could be
            read.
        OSError: The disk is full. Finished images are kept in ``OUT.parts``.
        RuntimeError: A worker process was killed.
    """
    workers = number_of_workers(workers)
    if not images:
        raise ValueError('the json has no images: check --ann-file')
    out = Path(out)
    check_output_file(out, '--out')
    earlier = _earlier_cache(out)
    sizes = _decoded_sizes(images, img_prefix, max_bytes)
    images = images[:len(sizes)]
    if not images:
        raise ValueError(f'--max-gb allows {size_text(max_bytes or 0)}, less '
                         'than the pixels of the first image: set a larger '
                         'value')
    tasks = [
        _Task(x['id'], x['file_name'], image_path(img_prefix, x['file_name']),
              size, max_bytes is not None)
        for x, size in zip(images, sizes)]
    journal = CacheJournal(out)
    try:
        return _make(tasks, max_bytes, out, workers, journal, earlier)
    finally:
        journal.close()


def _make(tasks: Sequence[_Task], max_bytes: Optional[int], out: Path,
          workers: int, journal: CacheJournal,
          earlier: Optional[PixelCache]) -> CacheOutcome:
    """Write the cache of these images; the journal is locked."""
    found = journal.start()
    entries = _unchanged(tasks, found)
    dropped = {entry.image_id for entry in found}.union(
        earlier.ids.tolist() if earlier else ()).difference(
        task.image_id for task in tasks)
    if not entries and earlier is not None:
        unreadable = _keep_earlier(tasks, max_bytes, earlier)
        if unreadable is not None:
            journal.remove()
            return CacheOutcome(0, 0, 0, len(earlier), 0, unreadable)
    remaining = [x for x in tasks if x.image_id not in entries]
    needed = sum(x.size for x in remaining)
    used = sum(aligned(x.end - x.offset) for x in entries.values())
    length = max(0, journal.pixels.stat().st_size - ALIGNMENT)
    if _is_too_long(length, used, needed, max_bytes):
        with _explain_full_disk(journal):
            moved = journal.compact(entries.values())
        entries = {x.image_id: x for x in moved}
    _check_disk_space(out, needed, len(remaining))
    done = _decode_all(remaining, journal, workers, earlier, len(entries))
    new = [x.entry for x in done if x.entry is not None]
    unreadable = {task.name: x.problem for task, x in zip(remaining, done)
                  if x.entry is None}
    written = [*entries.values(), *new]
    if not written:
        name, problem = next(iter(unreadable.items()))
        journal.remove()
        raise ValueError(f'none of the {len(tasks)} images could be read '
                         f'({name}: {problem}): check --img-prefix')
    with _explain_full_disk(journal):
        with open(journal.pixels, 'rb+') as file:
            write_index(file, written)
        replace_durably(journal.pixels, out)
    journal.remove()
    copied = sum(x.copied for x in done)
    return CacheOutcome(len(new) - copied, copied, len(entries),
                        len(written), len(dropped), unreadable)


def _keep_earlier(tasks: Sequence[_Task], max_bytes: Optional[int],
                  earlier: PixelCache) -> Optional[dict[str, str]]:
    """Update the times in an earlier cache that has exactly these images.

    Return the reasons by file name of unreadable images, or None if the cache
    must be made again.
    """
    before = [x for x in map(earlier.entry, earlier.ids.tolist()) if x]
    wanted = _unchanged(tasks, before)
    if len(wanted) != len(before) or _is_too_long(
            *earlier.pixel_bytes, 0, max_bytes):
        return None
    unreadable = _all_unreadable(
        [x for x in tasks if x.image_id not in wanted])
    if unreadable is not None and any(
            wanted[x.image_id] != x for x in before):
        # Without the permission, the cache stays valid with the old times.
        with suppress(OSError), open(earlier.path, 'rb+') as file:
            write_index(file, list(wanted.values()))
    return unreadable


def _is_too_long(length: int, used: int, needed: int,
                 max_bytes: Optional[int]) -> bool:
    """Return True if too many of ``length`` bytes are not used by images.

    ``needed`` bytes of images will be added.
    """
    return length - used > _UNUSED * length or (
        max_bytes is not None and used < length
        and length + needed > max_bytes)


def _earlier_cache(out: Path) -> Optional[PixelCache]:
    """Return the cache at ``out``, or None if it is missing or damaged.

    Raises:
        ValueError: The file is not a pixel cache.
    """
    if not out.exists():
        return None
    if not is_pixel_cache(out):
        raise ValueError(f"'{out}' exists and is not a pixel cache: remove "
                         'it, or choose another --out')
    cache = PixelCache(out)
    try:
        cache.check()
    except ValueError:
        return None
    return cache


def _decoded_sizes(images: Sequence[dict], img_prefix: PathLike,
                   max_bytes: Optional[int]) -> list[int]:
    """Return the bytes of the pixels of each image, from 64 upwards.

    With ``max_bytes``, the list ends before the first image that exceeds the
    limit. Sizes that the json lacks are read from the files.
    """
    def size_of(image: dict) -> int:
        if 'width' in image:  # then 'height' too
            return aligned(3 * image['width'] * image['height'])
        try:
            width, height = read_size(
                image_path(img_prefix, image['file_name'])) or (0, 0)
        except OSError:
            return ALIGNMENT
        return aligned(3 * width * height)

    sizes: list[int] = []
    total = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(images), 1024):
            for size in pool.map(size_of, images[start:start + 1024]):
                total += size
                if max_bytes is not None and total > max_bytes:
                    return sizes
                sizes.append(size)
    return sizes


def _unchanged(tasks: Sequence[_Task],
               entries: Iterable[Entry]) -> dict[int, Entry]:
    """Return the entries of these images whose files are unchanged, by id.

    The entries have the present times of the files.
    """
    found = {entry.image_id: entry for entry in entries}
    tasks = [x for x in tasks if x.image_id in found]
    with ThreadPoolExecutor(_THREADS) as pool:
        unchanged = pool.map(
            lambda task: _update(task, found[task.image_id]), tasks)
        return {entry.image_id: entry for entry in unchanged if entry}


def _update(task: _Task, entry: Entry) -> Optional[Entry]:
    """Return an entry with its file's time, or None if it cannot be used."""
    if entry.name != task.name or (
            task.is_limited and entry.end - entry.offset > task.size):
        return None
    return updated(entry, task.path)


def _all_unreadable(tasks: Sequence[_Task]) -> Optional[dict[str, str]]:
    """Return the reasons by file name, or None if an image is readable."""
    problems = {}
    for task in tasks:
        decoded = _decode(task)
        if not isinstance(decoded, str):
            return None
        problems[task.name] = decoded
    return problems


def _check_disk_space(out: Path, needed: int, number: int) -> None:
    """Raise ValueError if the disk is too full for the pixels."""
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise ValueError(
            f"the disk of '{out}' has {size_text(free)} free, but the "
            f'pixels of {number} images need {size_text(needed)}: free disk '
            'space, choose another --out, or set --max-gb')


def _decode_all(tasks: Sequence[_Task], journal: CacheJournal, workers: int,
                earlier: Optional[PixelCache], found_before: int
                ) -> list[_Done]:
    """Write the pixels of all images; return the results in order."""
    done: list[Optional[_Done]] = [None] * len(tasks)
    with tempfile.NamedTemporaryFile() as lock, _explain_full_disk(journal):
        writer = _Writer(str(journal.pixels), lock.name, earlier)
        results = track(
            map_unordered(partial(_write_pixels, writer=writer), tasks,
                          workers),
            total=len(tasks) + found_before, initial=found_before)
        try:
            for number, result in results:
                if result.entry is not None:
                    journal.write(result.entry)
                done[number] = result
        finally:
            results.close()
    return [x for x in done if x is not None]


def _write_pixels(task: _Task, writer: _Writer) -> _Done:
    """Decode or copy an image, and write its pixels, in a worker process."""
    earlier = _find_earlier(task, writer.earlier)
    decoded = earlier or _decode(task)
    if isinstance(decoded, str):
        return _Done(None, problem=decoded)
    pixels, source = decoded
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).data.cast('B')
    with open(writer.pixels, 'rb+', buffering=0) as file:
        offset = at = _reserve(file.fileno(), writer.lock, len(data))
        while at < offset + len(data):
            at += os.pwrite(file.fileno(), data[at - offset:], at)
    entry = Entry(task.image_id, task.name, offset, height, width, source)
    return _Done(entry, copied=earlier is not None)


def _find_earlier(task: _Task, cache: Optional[PixelCache]
                  ) -> Optional[tuple[np.ndarray, Source]]:
    """Return the pixels of an unchanged file in the earlier cache."""
    entry = None if cache is None else cache.entry(task.image_id)
    entry = entry and _update(task, entry)
    if cache is None or entry is None:
        return None
    return cache.pixels(entry), entry.source


def _decode(task: _Task) -> Union[tuple[np.ndarray, Source], str]:
    """Return the pixels and the :class:`Source`, or why there are none."""
    try:
        size, mtime = source_stat(task.path)
        data = read_bytes(task.path)
        if len(data) != size:
            raise UnreadableImageError(
                NOT_READ, f'{len(data)} of {size} bytes can be read')
        pixels = EncodedImage(data).decode()
    except Exception as e:  # any error of a parser
        return f'{reason_of(e)} ({e})' if isinstance(
            e, OSError) else str(e) or reason_of(e)
    if task.is_limited and pixels.nbytes > task.size:
        return _LARGER
    return pixels, Source(size, mtime, digest_of_file(data))


def _reserve(file: int, lock: str, size: int) -> int:
    """Lengthen the file by an image; return the position of its pixels.

    The length of the file is the counter that all processes share: the space
    of a killed process stays unused.
    """
    with open(lock, 'rb+') as shared:
        fcntl.flock(shared, fcntl.LOCK_EX)
        start = aligned(os.fstat(file).st_size)
        os.ftruncate(file, start + size)
    return start


@contextmanager
def _explain_full_disk(journal: CacheJournal) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise OSError(
            f"cannot write to '{journal.folder}' ({e.strerror or e}): "
            'finished images are kept there; free disk space, and repeat the '
            'command to resume') from None
