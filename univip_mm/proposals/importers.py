"""Conversion of other projects' proposals to a proposal file."""
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Optional

from ..io.atomic import PathLike
from ..io.boxes import ProposalRules, filter_boxes
from ..io.coco_json import MAX_SIDE
from ..utils.errors import warn
from ..utils.parallel import map_unordered
from ..utils.progress import track
from ..version import __version__
from .box_cleaning import Counts, clean_boxes
from .proposal_file import check_path, write_proposals
from .readers import READERS

_BATCH_SIZE = 32  # images per task, to keep the cost of a task small


def import_proposals(source_format: str, source: PathLike,
                     images: Sequence[dict], out: PathLike,
                     rules: ProposalRules, top_n: Optional[int] = None,
                     ann_name: str = '',
                     workers: Optional[int] = None) -> Counts:
    """Convert, clean and filter proposals, and count the boxes.

    ``source_format`` is a key of ``READERS``. ``images`` are those of
    :func:`~univip_mm.io.coco_json.read_coco`. ``ann_name`` is the name of the
    json, to be stored in the proposal file ``out``. By default, the number of
    boxes per image is not limited, and one process per usable core filters.

    Boxes are clipped to their image. If the json has no size of an image, its
    boxes are kept as they are, and the number of these images is logged. A
    warning reports that most boxes were dropped or clipped.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: The source has another format (see the readers), or no box
            is left.
    """
    out = check_path(out)
    if source_format == 'pickle':
        raise ValueError(
            'pickles are not read, because they can run code: convert a file '
            'that you trust to COCO results, as in page "Proposals"')
    if source_format not in READERS:
        raise ValueError(f"unknown format '{source_format}': choose one of "
                         f'{", ".join(READERS)}')
    if not Path(source).exists():
        raise FileNotFoundError(f"no file '{source}' to import")
    sizes = _sizes_of(images, ann_name)
    tasks = _in_batches(
        (image_id, boxes, *sizes[image_id])
        for image_id, boxes in READERS[source_format](source, images))
    work = partial(_clean_and_filter, rules=rules, top_n=top_n)
    counts, kept = Counts(), {}
    # The worker processes filter while this process reads.
    with track((), total=len(images)) as bar:
        for _, (boxes, batch_counts) in map_unordered(work, tasks, workers):
            kept.update(boxes)
            counts += batch_counts
            bar.update(len(boxes))
    if counts.read == 0:
        raise ValueError(f"no box in '{source}' where the format "
                         f"'{source_format}' has its boxes: see "
                         "'convert_proposals.py -h' for the formats")
    _check_losses(counts, sum(map(len, kept.values())), source, rules)
    meta = dict(
        method=f'imported from {source_format}',
        imported_from=Path(source).name, rules=rules.as_dict(), top_n=top_n,
        source=ann_name, versions=dict(univip_mm=__version__),
        boxes=asdict(counts))
    write_proposals(out, kept, meta, {x['id']: x['file_name'] for x in images})
    return counts


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


def _sizes_of(images: Sequence[dict], ann_name: str) -> dict:
    """Return (width, height) by image id; an unknown size does not clip."""
    unknown = [x['id'] for x in images if 'width' not in x]
    if unknown:
        warn(f"{len(unknown)} of {len(images)} images of '{ann_name}' have no "
             f'size (the first: id {unknown[0]}): their boxes are not clipped,'
             ' and the training ignores boxes that leave their image')
    return {x['id']: (x.get('width', MAX_SIDE), x.get('height', MAX_SIDE))
            for x in images}


def _check_losses(counts: Counts, num_kept: int, source: PathLike,
                  rules: ProposalRules) -> None:
    """Raise ValueError if no box is left; warn if most boxes do not fit."""
    cure = ('check that the boxes are x, y, width, height in pixels, and that '
            'the annotation file lists these images with their sizes')
    lost = counts.not_finite + counts.empty + counts.outside
    if num_kept == 0:
        raise ValueError(
            f"no box of '{source}' is left: of {counts.read} boxes, "
            f'{counts.not_finite} are not finite, {counts.empty} are empty, '
            f'{counts.outside} are outside of their image, and '
            f'{counts.read - lost} do not obey the rules (min_size '
            f'{rules.min_size}): {cure}')
    if 2 * (lost + counts.clipped) > counts.read:
        warn(f"most boxes of '{source}' do not fit their images: of "
             f'{counts.read}, {lost} were dropped and {counts.clipped} were '
             f'clipped: {cure}')
