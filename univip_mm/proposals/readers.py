"""Readers of the proposal files of other projects.

A reader gets the path of the file and ``images`` of the COCO json. It yields
the image id and the boxes (N, 4) float64, x, y, width, height, of each image.
"""
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import numpy as np

from ..io.atomic import PathLike
from ..io.coco_json import whole_number
from ..utils.text import excerpt
from .json_stream import stream_json

Found = Iterator[tuple[int, np.ndarray]]


def read_orl(path: PathLike, images: Sequence[dict]) -> Found:
    """Read ORL's JSON as a stream.

    The format is ``{"bbox": [[[x, y, w, h], ...], ...]}``, with a list of
    boxes per image, in the order of the annotation file. ORL's writer removes
    dimensions of size 1, so one box is ``[x, y, w, h]`` without a list around.

    Raises:
        ValueError: The file has another format, is truncated, or has another
            number of images.
    """
    number = 0
    for boxes in stream_json(path, 'bbox.item'):
        if number < len(images):
            yield images[number]['id'], _as_boxes(boxes, path, number)
        number += 1
    _check_number(path, number, images)


def read_coco_results(path: PathLike, images: Sequence[dict]) -> Found:
    """Read a COCO results JSON as a stream, and sort the boxes by score.

    The format is ``[{"image_id", "bbox": [x, y, w, h], "score"}, ...]``. The
    boxes need 24 bytes of memory each. The best score comes first.

    Raises:
        ValueError: The file has another format, is truncated, or has boxes of
            an image that is not listed.
    """
    index = {image['id']: i for i, image in enumerate(images)}
    rows, parts = [], []
    for number, entry in enumerate(stream_json(path, 'item')):
        rows.append(_parse_result(entry, number, path, index))
        if len(rows) == 100_000:
            parts.append(np.array(rows, dtype=np.float32))
            rows.clear()
    # Columns: index of the image, score, box. float32 is exact for integers
    # up to 2**24, which is enough for the index.
    table = np.concatenate(
        [*parts, np.array(rows, dtype=np.float32).reshape(-1, 6)])
    order = np.lexsort((-table[:, 1], table[:, 0]))
    starts = np.searchsorted(table[order, 0], np.arange(len(images) + 1))
    for i, image in enumerate(images):
        rows_of_image = order[starts[i]:starts[i + 1]]
        yield image['id'], table[rows_of_image, 2:].astype(np.float64)


READERS = dict(orl=read_orl, coco=read_coco_results)


def _check_number(path: PathLike, number: int, images: Sequence) -> None:
    # No list of boxes at all is another fault, which the caller reports.
    if number not in (0, len(images)):
        raise ValueError(
            f"'{path}' has the boxes of {number} images, but the annotation "
            f'file lists {len(images)}: use the annotation file that the '
            "proposals were made for (ORL's writer stores only the images of "
            'its first process: it must have run as one process)')


def _parse_result(entry: Any, number: int, path: PathLike,
                  index: dict[int, int]) -> tuple:
    """Return index of the image, score, x, y, width and height."""
    try:
        image_id = entry['image_id']
        score, box = float(entry.get('score', 0)), [*map(float, entry['bbox'])]
        if len(box) != 4:
            raise ValueError(f'bbox has {len(box)} numbers')
        if not isfinite(score):
            raise ValueError(f'score is {score}')
        if type(image_id) is not int:
            image_id = whole_number(image_id)
        i = index.get(image_id)
    except (KeyError, TypeError, AttributeError, ValueError,
            OverflowError) as e:
        raise ValueError(
            f"entry {number} of '{path}' is not a COCO result "
            f"({type(e).__name__}: {e}): it needs 'image_id', 'bbox' and "
            "'score'") from None
    if i is None:
        raise ValueError(
            f"'{path}' has boxes of image id {excerpt(entry['image_id'])}, "
            f'which is not among the {len(index)} images of the annotation '
            'file: use the annotation file that the proposals were made for')
    return (i, score, *box)


def _as_boxes(boxes: Any, path: PathLike, image: object) -> np.ndarray:
    """Convert a list to (N, 4) float64, None to NaN."""
    try:
        array = np.asarray(boxes, dtype=np.float64)
        if array.size == 0:
            return np.zeros((0, 4))
        if array.shape == (4, ):  # one box
            return array[None]
        if array.ndim != 2 or array.shape[1] != 4:
            raise ValueError(f'its shape is {array.shape}')
    except (ValueError, TypeError, OverflowError) as e:
        raise ValueError(f"the boxes of image {image!r} in '{path}' are not a "
                         f'list of [x, y, w, h] ({e})') from None
    return array
