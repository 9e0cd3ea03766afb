"""Readers of the proposal files of other projects.

A reader gets the path of the file and ``images`` of the COCO json. It yields
the image id and the boxes (N, 4) float64, x, y, width, height, of each image.
"""
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..io.atomic import PathLike
from .box_pickle import load_pickle

Found = Iterator[tuple[int, np.ndarray]]


def read_orl(path: PathLike, images: Sequence[dict]) -> Found:
    """Read ORL's JSON as a stream.

    The format is ``{"bbox": [[[x, y, w, h], ...], ...]}``, with a list of
    boxes per image, in the order of the annotation file.

    Raises:
        ValueError: The file has another format, is truncated, or has another
            number of images.
    """
    number = 0
    for boxes in _stream_json(path, 'bbox.item'):
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
    for number, entry in enumerate(_stream_json(path, 'item')):
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


def read_pickle(path: PathLike, images: Sequence[dict]) -> Found:
    """Read the pickle of the earlier UniVIP reproduction.

    The format is ``{"bbox": {file name: boxes}}``, written by pickle or
    ``torch.save``. The boxes are a list, a NumPy array or a tensor. A file
    name matches with or without its folder. No code in the file is executed.

    Raises:
        ValueError: The file has another format, is truncated, has forbidden
            content, or has the boxes of other images.
    """
    content = load_pickle(path)
    boxes = content.get('bbox') if isinstance(content, dict) else None
    if not isinstance(boxes, dict):
        raise ValueError(f"'{path}' has no {{'bbox': {{file name: boxes}}}}: "
                         "see 'convert_proposals.py -h' for the formats")
    by_name = {os.path.basename(name): value for name, value in boxes.items()}
    by_name.update(boxes)
    _check_number(path, len(boxes), images)
    for image in images:
        name = image['file_name']
        found = by_name.get(name, by_name.get(os.path.basename(name)))
        if found is None:
            raise ValueError(f"'{path}' has no boxes of '{name}': it belongs "
                             'to other images than the annotation file')
        yield image['id'], _as_boxes(found, path, name)


READERS = dict(orl=read_orl, pickle=read_pickle, coco=read_coco_results)


def _check_number(path: PathLike, number: int, images: Sequence) -> None:
    if number != len(images):
        raise ValueError(
            f"'{path}' has the boxes of {number} images, but the annotation "
            f'file lists {len(images)}: use the annotation file that the '
            'proposals were made for')


def _parse_result(entry: Any, number: int, path: PathLike,
                  index: dict[int, int]) -> tuple:
    """Return index of the image, score, x, y, width and height."""
    try:
        image_id = entry['image_id']
        score, box = entry.get('score', 0), [*entry['bbox']]
        if len(box) != 4:
            raise ValueError(f'bbox has {len(box)} numbers')
        i = index.get(image_id)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise ValueError(
            f"entry {number} of '{path}' is not a COCO result "
            f"({type(e).__name__}: {e}): it needs 'image_id', 'bbox' and "
            "'score'") from None
    if i is None:
        raise ValueError(
            f"'{path}' has boxes of image id {image_id}, which is not among "
            f'the {len(index)} images of the annotation file: use the '
            'annotation file that the proposals were made for')
    return (i, score, *box)


def _as_boxes(boxes: Any, path: PathLike, image: object) -> np.ndarray:
    """Convert a list, array or tensor to (N, 4) float64, None to NaN."""
    try:
        if hasattr(boxes, 'detach'):  # a tensor
            boxes = boxes.detach().numpy()
        array = np.asarray(boxes, dtype=np.float64)
        if array.size == 0:
            return np.zeros((0, 4))
        if array.ndim != 2 or array.shape[1] != 4:
            raise ValueError(f'its shape is {array.shape}')
    except (ValueError, TypeError) as e:
        raise ValueError(f"the boxes of image {image!r} in '{path}' are not a "
                         f'list of [x, y, w, h] ({e})') from None
    return array


def _stream_json(path: PathLike, prefix: str) -> Iterator:
    """Yield the values below a prefix of a JSON file."""
    try:
        import ijson
    except ImportError:
        raise ImportError('large JSON files are read with ijson: '
                          "'pip install ijson'") from None
    with open(path, 'rb') as file:
        try:
            yield from ijson.items(file, prefix, use_float=True)
        except ijson.JSONError as e:
            reason = ' '.join(str(e).split())
            raise ValueError(f"'{path}' is not JSON, or is truncated, after "
                             f'{file.tell()} bytes: {reason[:120]}') from None
