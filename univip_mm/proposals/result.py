"""Files of a finished search: proposals, lists, and unreadable images."""
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from ..io.atomic import PathLike, atomic_write
from ..io.coco_json import digest_of
from ..utils.text import printable
from .earlier import path_of_searched, write_list
from .journal import LIST, Journal
from .proposal_file import FORMAT, VERSION, ProposalFile, write_proposals
from .search import NO_BOXES, Found


def path_of_unreadable(out: PathLike,
                       list_file: Optional[PathLike] = None) -> Path:
    """Return the path of the text file of unreadable images.

    The file is beside a ``list_file`` ``images.json``, or beside the proposal
    file ``out``: ``NAME.unreadable.txt`` or, without NAME, ``unreadable.txt``.
    """
    if list_file is not None and Path(list_file).name == 'images.json':
        return Path(list_file).with_name('unreadable.txt')
    return Path(out).with_suffix('.unreadable.txt')


@dataclass
class Result:
    """Results of all images.

    Attributes:
        images (Sequence[dict]): All images, in the order of the json.
        results (dict[int, Found]): Results of readable images by id.
        problems (dict[int, str]): Reasons of unreadable images by id.
    """
    images: Sequence[dict]
    results: dict[int, Found]
    problems: dict[int, str]

    @property
    def unreadable(self) -> dict[str, str]:
        """Reasons of unreadable images by file name."""
        return {x['file_name']: self.problems[x['id']] for x in self.images
                if x['id'] in self.problems}

    @property
    def reduced(self) -> list[int]:
        """Ids of the large images, which were searched in a copy."""
        return sorted(i for i, found in self.results.items() if found.reduced)


def collect(images: Sequence[dict], earlier: dict[int, Found],
            journal: Journal) -> Result:
    """Join earlier results and the journal.

    Raises:
        ValueError: The result of an image is missing.
    """
    names = {image['id']: image['file_name'] for image in images}
    results, problems = dict(earlier), {}
    for image_id, found in journal.read(names):
        if found.problem is None:
            results[image_id] = found
        else:
            problems[image_id] = found.problem
    lost = names.keys() - results.keys() - problems.keys()
    if lost:
        raise ValueError(
            f"'{journal.folder}' lacks the results of {len(lost)} images: "
            'repeat the command, which searches only these images')
    return Result(images, results, {i: problem for i, problem
                                    in problems.items() if i not in results})


def write_result(result: Result, folder: PathLike, out: Path, meta: dict,
                 journal: Journal, list_file: Optional[PathLike]) -> None:
    """Write the proposal file and the files beside it.

    ``folder`` is that of the images. The journal and one of the lists always
    fit the proposal file, also if the process is killed between two files.
    """
    images = result.images
    if list_file is not None:
        images = [x for x in images if x['id'] in result.results]
    write_list(journal.folder / LIST, images, folder)
    _write_proposals(result, images, out, meta)
    write_list(path_of_searched(out), images, folder)
    if list_file is not None:
        with atomic_write(list_file, 'w') as file:
            json.dump(dict(images=images, annotations=[], categories=[]), file)
    _write_unreadable(result.unreadable, path_of_unreadable(out, list_file))


def _write_proposals(result: Result, images: Sequence[dict], out: Path,
                     meta: dict) -> None:
    names = {x['id']: x['file_name'] for x in images}
    meta = dict(meta, image_list=digest_of(images),
                unreadable=sorted(names.keys() - result.results.keys()))
    if result.reduced:  # else, as a file of a version without copies
        meta['reduced'] = result.reduced
    boxes = {i: result.results[i].boxes if i in result.results else NO_BOXES
             for i in names}
    if not _is_written(out, boxes, meta):
        write_proposals(out, boxes, meta, names)


def _is_written(out: Path, boxes: dict, meta: dict) -> bool:
    """Return True if the proposal file already has this content."""
    try:
        file = ProposalFile(out)
    except (FileNotFoundError, ValueError):
        return False
    return (file.meta == dict(meta, format=FORMAT, version=VERSION)
            and list(file) == sorted(boxes)
            and all(np.array_equal(file[i], boxes[i]) for i in boxes))


def _write_unreadable(unreadable: dict[str, str], path: Path) -> None:
    """Write a line of name, tab and reason for each unreadable image."""
    if not unreadable:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path, 'w') as file:
        for name, problem in unreadable.items():
            file.write(f'{printable(name)}\t{printable(problem)}\n')
