"""Conversion of other projects' proposals to a proposal file."""
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Callable, Optional, Union

from ..io.boxes import ProposalRules, filter_boxes
from ..utils.parallel import map_unordered
from ..utils.progress import track
from ..version import __version__
from .box_cleaning import Counts, clean_boxes
from .proposal_file import check_path, write_proposals
from .readers import READERS

PathLike = Union[str, os.PathLike]
_BATCH_SIZE = 32  # images per task, to keep the cost of a task small


def import_proposals(source_format: str,
                     source: PathLike,
                     images: Sequence[dict],
                     out: PathLike,
                     rules: ProposalRules,
                     top_n: Optional[int] = None,
                     ann_name: str = '',
                     workers: Optional[int] = None) -> Counts:
    """Convert, clean and filter proposals, with a progress bar.

    Args:
        source_format (str): 'orl', 'pickle' or 'coco'.
        source (str or PathLike): The file to read.
        images (Sequence[dict]): ``images`` of the COCO json, with ``width``
            and ``height``.
        out (str or PathLike): The proposal file, ending in ``.npz``; written
            atomically.
        rules (ProposalRules): The three rules.
        top_n (int, optional): Largest number of boxes per image. Defaults to
            None, no limit.
        ann_name (str): Name of the json, stored in the file. Defaults to ''.
        workers (int, optional): Processes that filter. Defaults to None, one
            for each core that this process may use.

    Returns:
        Counts: Numbers of read, dropped and clipped boxes.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: The source has another format or no box (see the readers),
            or an image has no size.
    """
    out = check_path(out)
    if source_format not in READERS:
        raise ValueError(f"unknown format '{source_format}': choose one of "
                         f'{", ".join(READERS)}')
    if not Path(source).is_file():
        raise FileNotFoundError(f"no file '{source}' to import")
    kept, counts = _filter_in_parallel(
        READERS[source_format](source, images), images,
        partial(_clean_and_filter, rules=rules, top_n=top_n), workers)
    if counts.read == 0:
        raise ValueError(f"no box in '{source}' in the place of the format "
                         f"'{source_format}': see 'convert_proposals.py -h' "
                         'for the formats')
    meta = dict(
        method=f'imported from {source_format}',
        imported_from=Path(source).name,
        rules=rules.as_dict(),
        top_n=top_n,
        source=ann_name,
        versions=dict(univip_mm=__version__),
        boxes=asdict(counts))
    write_proposals(out, kept, meta,
                    {image['id']: image['file_name'] for image in images})
    return counts


def _filter_in_parallel(found: Iterator[tuple], images: Sequence[dict],
                        work: Callable,
                        workers: Optional[int]) -> tuple[dict, Counts]:
    """Filter the boxes in worker processes while this process reads them."""
    sizes = _sizes_of(images)
    tasks = _in_batches(
        (image_id, boxes, *sizes[image_id]) for image_id, boxes in found)
    counts, kept = Counts(), {}
    with track((), total=len(images)) as bar:
        for _, (boxes, batch_counts) in map_unordered(work, tasks, workers):
            kept.update(boxes)
            counts += batch_counts
            bar.update(len(boxes))
    return kept, counts


def _in_batches(items: Iterator) -> Iterator[list]:
    while batch := list(itertools.islice(items, _BATCH_SIZE)):
        yield batch


def _clean_and_filter(batch: list, rules: ProposalRules,
                      top_n: Optional[int]) -> tuple[dict, Counts]:
    counts, kept = Counts(), {}
    for image_id, boxes, width, height in batch:
        cleaned = clean_boxes(boxes, width, height, counts)
        kept[image_id] = filter_boxes(cleaned, rules, top_n)
    return kept, counts


def _sizes_of(images: Sequence[dict]) -> dict:
    try:
        return {x['id']: (x['width'], x['height']) for x in images}
    except KeyError as e:
        raise ValueError(f"an image of the annotation file has no {e}, which "
                         'is needed to clip boxes: add the sizes to the json'
                         ) from None
