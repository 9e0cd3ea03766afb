"""Proposals for every image of a data set, in parallel."""
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import cv2
import mmcv
import numpy as np
from mmengine.utils import ProgressBar

from ..boxes import ProposalRules, filter_boxes
from ..parallel import map_in_order
from ..version import __version__
from .proposal_file import check_path, write_proposals
from .selective_search import check_opencv, selective_search


@dataclass(frozen=True)
class Search:
    """How the boxes of an image are made: the arguments of
    :func:`~univip_mm.proposals.selective_search.selective_search` and
    :func:`~univip_mm.boxes.filter_boxes`."""
    method: str = 'fast'
    rules: ProposalRules = ProposalRules()
    top_n: Optional[int] = None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        boxes = selective_search(image, self.method)
        return filter_boxes(boxes, self.rules, self.top_n)

    def describe(self) -> dict:
        return dict(
            method=f'selective search, {self.method}',
            rules=self.rules.as_dict(),
            top_n=self.top_n,
            versions=dict(univip_mm=__version__, opencv=cv2.__version__))


@dataclass
class Outcome:
    """What became of a data set: boxes of each image (N, 4) by image id, and
    for each image that could not be read, the reason by file name."""
    boxes: dict
    unreadable: dict


def search_images(images: Sequence[dict],
                  img_prefix: Union[str, os.PathLike],
                  search: Search,
                  workers: Optional[int] = None) -> Outcome:
    """Search every image of a COCO json, with a progress bar.

    An image's boxes depend on its pixels alone, not on the workers.

    Args:
        images (Sequence[dict]): The json's ``images``.
        img_prefix (str or PathLike): The folder of their ``file_name``.
        search (Search): How to make the boxes.
        workers (int, optional): Processes. Defaults to None, one for each
            core that this process may use.

    Returns:
        Outcome: An unreadable image has no boxes and is listed.
    """
    check_opencv()
    tasks = [(Path(img_prefix) / image['file_name'], search)
             for image in images]
    outcome = Outcome({}, {})
    bar = ProgressBar(len(tasks))
    for image, (boxes, problem) in zip(
            images, map_in_order(_search_image, tasks, workers)):
        outcome.boxes[image['id']] = boxes
        if problem:
            outcome.unreadable[image['file_name']] = problem
        bar.update()
    print()  # the bar leaves its line open
    return outcome


def generate_proposals(images: Sequence[dict],
                       img_prefix: Union[str, os.PathLike],
                       out: Union[str, os.PathLike],
                       search: Search,
                       source: str = '',
                       workers: Optional[int] = None) -> Outcome:
    """Search every image and write the proposal file.

    Args:
        images (Sequence[dict]): As for :func:`search_images`.
        img_prefix (str or PathLike): Likewise.
        out (str or PathLike): The proposal file, ending in ``.npz``.
        search (Search): How to make the boxes.
        source (str): What the file is to say of its origin, the name of the
            json. Defaults to ''.
        workers (int, optional): As for :func:`search_images`.

    Returns:
        Outcome: What was written, and what could not be read.

    Raises:
        ValueError: ``out`` does not end in ``.npz``, or no image could be
            read.
    """
    check_path(out)
    outcome = search_images(images, img_prefix, search, workers)
    if len(outcome.unreadable) == len(images):
        name, problem = next(iter(outcome.unreadable.items()))
        raise ValueError(f"none of the {len(images)} images below "
                         f"'{img_prefix}' could be read ({name}: {problem}): "
                         'check --img-prefix')
    write_proposals(
        out, outcome.boxes,
        dict(
            **search.describe(),
            source=source,
            unreadable=sorted(outcome.unreadable)))
    return outcome


def _search_image(task: tuple) -> tuple:
    """Boxes of one image, or none and the reason."""
    path, search = task
    no_boxes = np.zeros((0, 4), dtype=np.int32)
    try:
        # Decoded as the training decodes it, so that the boxes fit: BGR,
        # turned as its EXIF tag says.
        image = mmcv.imread(path, flag='color')
    except (OSError, cv2.error) as e:
        return no_boxes, _one_line(e)
    if image is None:
        return no_boxes, 'not an image, or a damaged one'
    return search(image), None


def _one_line(error: Exception) -> str:
    reason = getattr(error, 'strerror', None) or str(error)
    return ' '.join(reason.split())
