"""Proposals for every image of a data set, in parallel, in as many goes as it
takes."""
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

from ..io.boxes import ProposalRules, filter_boxes
from ..io.coco_json import digest_of
from ..io.images import UnreadableImageError, decode_image
from ..utils.distributed import (
    barrier,
    broadcast,
    local_world_size,
    rank_and_world_size,
)
from ..utils.parallel import map_unordered, number_of_workers
from ..utils.progress import track
from ..version import __version__
from .journal import Journal
from .proposal_file import ProposalFile, check_path, write_proposals
from .selective_search import check_opencv, selective_search


@dataclass(frozen=True)
class Search:
    """How the boxes of an image are made.

    Args:
        method (str): As for
            :func:`~univip_mm.proposals.selective_search.selective_search`.
            Defaults to 'fast'.
        rules (ProposalRules): The three rules.
        top_n (int, optional): Keep at most that many. Defaults to None, all.
        max_side (int, optional): Search on a copy of the image whose longer
            side is reduced to that, pixels, and scale the boxes back.
            Defaults to None, the image itself.

    Raises:
        ValueError: ``top_n`` or ``max_side`` is below 1.
    """
    method: str = 'fast'
    rules: ProposalRules = ProposalRules()
    top_n: Optional[int] = None
    max_side: Optional[int] = None

    def __post_init__(self) -> None:
        for name in ('top_n', 'max_side'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}, but must be at least 1')

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) int32, xyxy, of an image (H, W, 3) uint8, BGR."""
        height, width = image.shape[:2]
        if min(height, width) < self.rules.min_size:
            # No box can obey, and OpenCV takes minutes for 30000 x 2 pixels.
            return np.zeros((0, 4), dtype=np.int32)
        scale = min(1, (self.max_side or np.inf) / max(height, width))
        if scale < 1:
            small = cv2.resize(
                image, (max(1, round(width * scale)),
                        max(1, round(height * scale))),
                interpolation=cv2.INTER_AREA)
            boxes = selective_search(small, self.method)
            ratio = np.array(image.shape[1::-1]) / small.shape[1::-1]
            boxes = np.round(boxes * np.tile(ratio, 2)).astype(np.int32)
        else:
            boxes = selective_search(image, self.method)
        return filter_boxes(boxes, self.rules, self.top_n)

    def describe(self) -> dict:
        """What a proposal file says of it."""
        return dict(
            method=f'selective search, {self.method}',
            max_side=self.max_side,
            rules=self.rules.as_dict(),
            top_n=self.top_n,
            versions=dict(univip_mm=__version__, opencv=cv2.__version__))


@dataclass
class Outcome:
    """What became of a search: how many images were searched now and how many
    had been before; and for each image that could not be read, the reason by
    file name."""
    searched: int
    found_before: int
    unreadable: dict


def generate_proposals(images: Sequence[dict],
                       img_prefix: Union[str, os.PathLike],
                       out: Union[str, os.PathLike],
                       search: Search,
                       source: str = '',
                       workers: Optional[int] = None) -> Outcome:
    """Search every image and write the proposal file, with a progress bar.

    What is found is noted image by image in ``OUT.parts``. Killed at any
    moment and called again, it goes on from there; images that could not be
    read are tried again. Where the processes of a launcher are in a group,
    each searches its share, on one machine or on several with a common disk,
    and the first one writes the file when all are done. An image's boxes
    depend on its pixels alone, so the file is the same to the byte however
    it came about.

    Args:
        images (Sequence[dict]): The ``images`` of a COCO json.
        img_prefix (str or PathLike): The folder of their ``file_name``.
        out (str or PathLike): The proposal file, ending in ``.npz``. One that
            was made of the same images in the same way is left as it is.
        search (Search): How to make the boxes.
        source (str): What the file is to say of its origin, the name of the
            json. Defaults to ''.
        workers (int, optional): Processes of each member of the group.
            Defaults to None, its share of the machine's cores.

    Returns:
        Outcome: What was done, of all processes together.

    Raises:
        ImportError: OpenCV has no selective search.
        ValueError: ``out`` does not end in ``.npz``, an unfinished search of
            that name had other settings, or no image could be read.
        RuntimeError: A worker process was killed.
    """
    check_opencv()
    out = check_path(out)
    meta = dict(**search.describe(), source=source,
                image_list=digest_of(images))
    rank, world_size = rank_and_world_size()
    earlier, left = {}, None
    if rank == 0:
        earlier = _read_earlier(out, meta)
        journal = Journal(out, meta)
        journal.lock()
        done = set(earlier).union(
            i for i, _, problem in journal.read() if problem is None)
        left = [image for image in images if image['id'] not in done]
    # The first process alone says what is left: on a common disk, another
    # may not see yet what a third one has written.
    left = broadcast(left)
    if rank != 0:
        journal = Journal(out, meta)
    _search_images(left[rank::world_size], img_prefix, search, journal,
                   _share_of_workers(workers),
                   (len(images) - len(left)) // world_size)
    barrier()
    answer = None
    if rank == 0:
        answer = _merge(images, img_prefix, out, meta, earlier, journal)
    unreadable, problem = broadcast(answer)  # once the file is there
    if problem:
        raise ValueError(problem)
    return Outcome(len(left), len(images) - len(left), unreadable)


def _read_earlier(out: Path, meta: dict) -> dict:
    """The boxes of each image id that the file ``out`` has, if it was made
    of the same images in the same way; without those it could not read."""
    try:
        file = ProposalFile(out)
    except (FileNotFoundError, ValueError):
        return {}  # none, or something else: it is replaced
    as_read = json.loads(json.dumps(meta))
    if any(file.meta.get(name) != value for name, value in as_read.items()):
        return {}
    unreadable = set(file.meta['unreadable'])
    return {i: boxes for i, boxes in file.items() if i not in unreadable}


def _share_of_workers(workers: Optional[int]) -> int:
    if workers is not None:
        return number_of_workers(workers)
    # Slurm may have given this process cores of its own; else all processes
    # of the machine may use all of its cores, and share them.
    cores = number_of_workers()
    if cores < (os.cpu_count() or 1):
        return cores
    return max(1, cores // local_world_size())


def _search_images(images: Sequence[dict], img_prefix: Union[str, os.PathLike],
                   search: Search, journal: Journal, workers: int,
                   found_before: int) -> None:
    rank, world_size = rank_and_world_size()
    tasks = [(Path(img_prefix) / image['file_name'], search)
             for image in images]
    results = track(
        map_unordered(_search_image, tasks, workers),
        total=len(tasks) + found_before,
        initial=found_before,
        desc=None if world_size == 1 else f'rank 0 of {world_size}',
        disable=rank != 0)
    try:
        for number, (boxes, problem) in results:
            journal.write(images[number]['id'], boxes, problem)
    finally:
        results.close()
        journal.close()


def _merge(images: Sequence[dict], img_prefix: Union[str, os.PathLike],
           out: Path, meta: dict, earlier: dict,
           journal: Journal) -> tuple[dict, str]:
    """Write the proposal file from what was found. Returns the reasons of the
    images that could not be read by file name, and what is wrong, or ''."""
    boxes, problems = dict(earlier), {}
    for image_id, found, problem in journal.read():
        if problem is None:
            boxes[image_id] = found
        else:
            problems[image_id] = problem
    ids = [image['id'] for image in images]
    lost = [i for i in ids if i not in boxes and i not in problems]
    if lost:
        return {}, (f"'{journal.folder}' does not hold what was found in "
                    f'{len(lost)} images: repeat the command, which searches '
                    'these alone')
    unreadable = {
        image['file_name']: problems[image['id']]
        for image in images if image['id'] not in boxes
    }
    if not unreadable and len(earlier) == len(ids):
        journal.remove()  # nothing was left to do
        return {}, ''
    if not boxes:
        journal.remove()
        name, problem = next(iter(unreadable.items()))
        return unreadable, (
            f"none of the {len(images)} images below '{img_prefix}' could be "
            f'read ({name}: {problem}): check --img-prefix')
    nothing = np.zeros((0, 4), dtype=np.int32)
    write_proposals(
        out, {i: boxes.get(i, nothing) for i in ids},
        dict(**meta, unreadable=sorted(i for i in ids if i not in boxes)),
        {image['id']: image['file_name'] for image in images})
    journal.remove()
    return unreadable, ''


def _search_image(task: tuple) -> tuple:
    """Boxes of one image, or none and the reason."""
    path, search = task
    no_boxes = np.zeros((0, 4), dtype=np.int32)
    try:
        # As the training decodes it, so that the boxes fit.
        image = decode_image(path.read_bytes())
    except (OSError, UnreadableImageError, MemoryError) as e:
        return no_boxes, _one_line(e)
    try:
        return search(image), None
    except (cv2.error, MemoryError) as e:
        return no_boxes, f'the search failed: {_one_line(e)}'


def _one_line(error: Exception) -> str:
    reason = getattr(error, 'strerror', None) or str(error)
    return ' '.join(reason.split())
