"""Search for proposals in all images of a data set, in parallel.

An interrupted search can be resumed.
"""
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

from ..io.atomic import PathLike
from ..io.coco_json import digest_of, image_path
from ..utils.distributed import (
    barrier,
    broadcast,
    local_world_size,
    rank_and_world_size,
)
from ..utils.parallel import map_unordered, number_of_workers
from ..utils.progress import track
from .journal import Journal
from .proposal_file import ProposalFile, check_path, write_proposals
from .search import NO_BOXES, Search, search_file
from .selective_search import check_opencv


class Outcome(NamedTuple):
    """Numbers of images searched now and earlier, and unreadable images."""
    searched: int
    found_before: int
    unreadable: dict[str, str]  # reason by file name


def generate_proposals(images: Sequence[dict], img_prefix: PathLike,
                       out: PathLike, search: Search, source: str = '',
                       workers: Optional[int] = None) -> Outcome:
    """Search all images and write the proposal file, with a progress bar.

    A killed search is resumed from ``OUT.parts`` by the same call. Unreadable
    images are tried again. In a process group, each rank searches its share
    of the images, and rank 0 writes the file; on several machines, ``out``
    must be on a common disk. The bytes of the file depend neither on
    interruptions nor on the number of processes.

    Args:
        images (Sequence[dict]): ``images`` of the COCO json.
        img_prefix (str or PathLike): Folder of the images.
        out (str or PathLike): The proposal file, ending in ``.npz``. If it
            already has the same images and settings, it is not changed.
        search (Search): The search.
        source (str): Name of the json, stored in the file. Defaults to ''.
        workers (int, optional): Worker processes of each rank. Defaults to
            None, the rank's share of the cores.

    Returns:
        Outcome: Numbers and unreadable images, of all ranks.

    Raises:
        ImportError: OpenCV has no selective search.
        ValueError: ``out`` does not end in ``.npz``, an unfinished search of
            the same name has other settings, or no image could be read.
        RuntimeError: A worker process was killed.
    """
    check_opencv()
    out = check_path(out)
    meta = dict(**search.describe(), source=source,
                image_list=digest_of(images))
    journal, earlier, remaining = _start(images, out, meta)
    found_before = len(images) - len(remaining)
    _search_images(remaining, img_prefix, search, journal,
                   _workers_of_rank(workers), found_before)
    barrier()
    unreadable, error = broadcast(
        _write_result(images, img_prefix, out, meta, earlier, journal)
        if rank_and_world_size()[0] == 0 else None)
    if error:
        raise ValueError(error)
    return Outcome(len(remaining), found_before, unreadable)


def _start(images: Sequence[dict], out: Path,
           meta: dict) -> tuple[Journal, dict, list[dict]]:
    """Open the journal and find the images that are not searched yet.

    Returns the journal; on rank 0, the boxes of an earlier proposal file by
    image id; and the remaining images.
    """
    if rank_and_world_size()[0] != 0:
        # Rank 0 finds the remaining images for all ranks: on a common disk,
        # this rank may not see yet what another rank has written.
        remaining = broadcast(None)
        return Journal(out, meta), {}, remaining
    earlier = _read_earlier(out, meta)
    journal = Journal(out, meta)
    journal.lock()
    ids = {image['id'] for image in images}
    done = {i for i, _, problem in journal.read(ids) if problem is None}
    done.update(earlier)
    return journal, earlier, broadcast(
        [image for image in images if image['id'] not in done])


def _read_earlier(out: Path, meta: dict) -> dict:
    """Read the boxes by image id from a file of the same images and settings.

    Unreadable images are left out. Without such a file, the result is empty.
    """
    try:
        file = ProposalFile(out)
    except (FileNotFoundError, ValueError):
        return {}
    as_read = json.loads(json.dumps(meta))
    if any(file.meta.get(name) != value for name, value in as_read.items()):
        return {}
    unreadable = set(file.meta.get('unreadable', []))
    return {i: boxes for i, boxes in file.items() if i not in unreadable}


def _workers_of_rank(workers: Optional[int]) -> int:
    if workers is not None:
        return number_of_workers(workers)
    cores = number_of_workers()
    if cores < (os.cpu_count() or 1):
        return cores  # Slurm gave this rank cores of its own
    return max(1, cores // local_world_size())


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
        for number, (boxes, problem) in results:
            journal.write(images[number]['id'], boxes, problem)
    finally:
        results.close()
        journal.close()


def _write_result(images: Sequence[dict], img_prefix: PathLike, out: Path,
                  meta: dict, earlier: dict,
                  journal: Journal) -> tuple[dict, str]:
    """Write the proposal file from the journal, and remove the journal.

    Returns the reasons of unreadable images by file name, and an error
    message or '', because all ranks must raise the error.
    """
    names = {image['id']: image['file_name'] for image in images}
    boxes, problems = dict(earlier), {}
    for image_id, found, problem in journal.read(names):
        if problem is None:
            boxes[image_id] = found
        else:
            problems[image_id] = problem
    without_boxes = [i for i in names if i not in boxes]
    if lost := set(without_boxes) - set(problems):
        return {}, (f"'{journal.folder}' lacks the results of {len(lost)} "
                    'images: repeat the command, which searches only these '
                    'images')
    unreadable = {names[i]: problems[i] for i in without_boxes}
    error = ''
    if unreadable and not boxes:
        name, problem = next(iter(unreadable.items()))
        error = (f"none of the {len(images)} images below '{img_prefix}' "
                 f'could be read ({name}: {problem}): check --img-prefix')
    elif len(earlier) < len(images):
        write_proposals(
            out, {i: boxes.get(i, NO_BOXES) for i in names},
            dict(**meta, unreadable=sorted(without_boxes)), names)
    journal.remove()
    return unreadable, error
