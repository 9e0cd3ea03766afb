"""Search for proposals in all images of a data set, in parallel.

An interrupted search can be resumed.
"""
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

from ..io.atomic import PathLike
from ..io.coco_json import image_path
from ..utils.distributed import (
    barrier,
    broadcast,
    rank_and_world_size,
)
from ..utils.parallel import (
    map_unordered,
    number_of_workers,
    share_of_cores,
)
from ..utils.progress import track
from .earlier import earlier_results, warn_of_other_folder, write_list
from .journal import LIST, Journal
from .result import collect, write_result
from .search import Found, Search, search_file
from .selective_search import check_opencv
from .start_checks import (
    check_disk_space,
    check_folder,
    check_images,
    check_outputs,
)


class Outcome(NamedTuple):
    """Numbers of images searched now and earlier, and unreadable images.

    Attributes:
        searched (int): Number of images searched now.
        found_before (int): Number of images searched earlier.
        unreadable (dict[str, str]): Reasons by file name.
        reduced (int): Number of large images, searched in a reduced copy.
    """
    searched: int
    found_before: int
    unreadable: dict[str, str]
    reduced: int


def generate_proposals(images: Sequence[dict], img_prefix: PathLike,
                       out: PathLike, search: Search, source: str = '',
                       workers: Optional[int] = None,
                       list_file: Optional[PathLike] = None) -> Outcome:
    """Search all images and write the proposal file, with a progress bar.

    A killed search is resumed from ``OUT.parts`` by the same call. Results
    of an earlier file ``out`` and of an unfinished search are used again, if
    they have the same settings, image id and file name. Unreadable images are
    tried again; ``OUT.unreadable.txt`` lists them. In a process group, each
    rank searches its share of the images, and rank 0 writes the files; on
    several machines, ``out`` must be on a common disk. The bytes of the file
    depend neither on interruptions nor on the number of processes.

    Args:
        images (Sequence[dict]): ``images`` of the COCO json.
        img_prefix (str or PathLike): Folder of the images.
        out (str or PathLike): The proposal file, ending in ``.npz``. If it
            already has the same images and settings, it is not changed.
        search (Search): The search.
        source (str): Name of the json, stored in the file. Defaults to ''.
        workers (int, optional): Worker processes of each rank. Defaults to
            None, the rank's share of the cores.
        list_file (str or PathLike, optional): COCO json to write. It and the
            proposal file then have the readable images only. By default, the
            proposal file has unreadable images too, without boxes.

    Returns:
        Outcome: Numbers and unreadable images, of all ranks.

    Raises:
        ImportError: OpenCV has no selective search.
        ValueError: ``out`` does not end in ``.npz`` or cannot be written, an
            id or a file name is invalid, an unfinished search of the same
            name has other settings, or no image could be read.
        OSError: The disk is full. Finished images are kept in ``OUT.parts``.
        RuntimeError: A worker process was killed.
    """
    check_opencv()
    check_images(images)
    workers = share_of_cores() if workers is None else (
        number_of_workers(workers))
    if not images:
        return Outcome(0, 0, {}, 0)
    out = Path(out)
    journal, earlier, remaining = _start(images, img_prefix, out, search,
                                         list_file)
    found_before = len(images) - len(remaining)
    try:
        _search_images(remaining, img_prefix, search, journal, workers,
                       found_before)
        barrier()
        result = broadcast(
            _finish(images, img_prefix, out,
                    dict(search.describe(), source=source), earlier, journal,
                    list_file)
            if rank_and_world_size()[0] == 0 else None)
    finally:
        journal.unlock()
    if isinstance(result, Exception):
        raise result
    return Outcome(len(remaining), found_before, *result)


def _start(images: Sequence[dict], img_prefix: PathLike, out: Path,
           search: Search, list_file: Optional[PathLike]
           ) -> tuple[Journal, dict[int, Found], list[dict]]:
    """Open the journal and find the images that are not searched yet.

    Returns the journal; on rank 0, the earlier results by image id; and the
    remaining images.
    """
    settings = search.describe()
    if rank_and_world_size()[0] != 0:
        # Rank 0 finds the remaining images for all ranks: on a common disk,
        # this rank may not see yet what another rank has written.
        remaining = broadcast(None)
        return Journal(out, settings), {}, remaining
    check_outputs(out, list_file)
    if not out.exists():  # it may have all images, without a search
        check_folder(img_prefix, images)
        check_disk_space(out, len(images), search.top_n)
    journal = Journal(out, settings)
    journal.lock()
    earlier = earlier_results(images, out, settings, journal)
    if earlier:
        warn_of_other_folder(out, img_prefix)
    write_list(journal.folder / LIST, images, img_prefix)
    return journal, earlier, broadcast(
        [image for image in images if image['id'] not in earlier])


def _search_images(images: Sequence[dict], img_prefix: PathLike,
                   search: Search, journal: Journal, workers: int,
                   found_before: int) -> None:
    """Search this rank's share of the images, and write to the journal."""
    rank, world_size = rank_and_world_size()
    images = images[rank::world_size]
    paths = [image_path(img_prefix, image['file_name']) for image in images]
    found_before //= world_size
    results = track(
        map_unordered(partial(search_file, search=search), paths, workers),
        total=len(paths) + found_before, initial=found_before,
        desc=None if world_size == 1 else f'rank 0 of {world_size}',
        disable=rank != 0)
    try:
        try:
            for number, found in results:
                image = images[number]
                journal.write(image['id'], image['file_name'], found)
        finally:
            results.close()
            journal.close()
    except OSError as e:
        raise OSError(
            f"cannot write to '{journal.folder}' ({e.strerror}): finished "
            'images are kept there; free disk space, and repeat the command '
            'to resume') from None


def _finish(images: Sequence[dict], img_prefix: PathLike, out: Path,
            meta: dict, earlier: dict[int, Found], journal: Journal,
            list_file: Optional[PathLike]):
    """Write all files and remove the journal; return an error to raise.

    All ranks must raise the error. Without an error, return the reasons of
    unreadable images by file name, and the number of reduced images.
    """
    try:
        result = collect(images, earlier, journal)
        if not result.results:
            journal.remove()
            name, problem = next(iter(result.unreadable.items()))
            return ValueError(
                f"none of the {len(images)} images below '{img_prefix}' "
                f'could be read ({name}: {problem}): check the folder')
        write_result(result, img_prefix, out, meta, journal, list_file)
        journal.remove()
        return result.unreadable, len(result.reduced)
    except ValueError as e:
        return e
    except OSError as e:
        return OSError(
            f"cannot write '{out}' and the lists beside it ({e.strerror}): "
            f"the results of all images are kept in '{journal.folder}'; free "
            'disk space, and repeat the command, which only writes the files')
