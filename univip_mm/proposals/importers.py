"""Proposals that others made, read from their files."""
import codecs
import io
import itertools
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Optional, Union

import numpy as np

from ..io.boxes import ProposalRules, filter_boxes
from ..utils.parallel import map_unordered
from ..utils.progress import track
from ..version import __version__
from .proposal_file import check_path, write_proposals

PathLike = Union[str, os.PathLike]


@dataclass
class Counts:
    """What became of the boxes of a source.

    Attributes:
        read (int): Boxes in the source.
        not_finite (int): Dropped: a number was NaN or infinite.
        empty (int): Dropped: a side was zero or negative.
        outside (int): Dropped: no pixel of the box is in the image.
        clipped (int): Cut off at the image's border.
    """
    read: int = 0
    not_finite: int = 0
    empty: int = 0
    outside: int = 0
    clipped: int = 0

    def __add__(self, other: 'Counts') -> 'Counts':
        return Counts(*(getattr(self, name) + getattr(other, name)
                        for name in asdict(self)))


def clean_boxes(boxes: np.ndarray, width: int, height: int,
                counts: Counts) -> np.ndarray:
    """Bring boxes to whole pixels inside their image, and count what had to
    be dropped or clipped.

    Args:
        boxes (np.ndarray): (N, 4) x, y, width, height, any numbers.
        width (int): Of the image, pixels.
        height (int): Of the image, pixels.
        counts (Counts): Is added to.

    Returns:
        np.ndarray: (M, 4) int32, xyxy in pixels, x2 and y2 outside.
    """
    counts.read += len(boxes)
    finite = np.isfinite(boxes.sum(axis=1))
    counts.not_finite += len(boxes) - _number(finite)
    # Beyond this no image goes, and an int32 does not hold it. By columns,
    # which NumPy does several times as fast as by rows of four.
    x, y, w, h = boxes[finite].clip(-1e6, 1e6).T
    x1, x2 = (np.round(v).astype(np.int32) for v in (x, x + w))
    y1, y2 = (np.round(v).astype(np.int32) for v in (y, y + h))
    full = (w > 0) & (h > 0) & (x2 > x1) & (y2 > y1)
    counts.empty += len(full) - _number(full)
    inside = full & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
    counts.outside += _number(full) - _number(inside)
    found = np.stack([x1, y1, x2, y2], axis=1)[inside]
    kept = np.stack([
        x1.clip(0), y1.clip(0), x2.clip(max=width), y2.clip(max=height)
    ], axis=1)[inside]  # yapf: disable
    counts.clipped += _number((kept != found).any(axis=1))
    return kept


def _number(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def read_orl(path: PathLike,
             images: Sequence[dict]) -> Iterator[tuple[int, np.ndarray]]:
    """ORL's JSON, ``{"bbox": [[[x, y, w, h], ...], ...]}``, with one list for
    each image in the order of the annotation file. Read as a stream.

    Args:
        path (str or PathLike): The file.
        images (Sequence[dict]): The ``images`` of the COCO json.

    Yields:
        tuple[int, np.ndarray]: Image id, and its boxes (N, 4) xywh.

    Raises:
        ValueError: It is not such a file, is cut short, or has lists for more
            or fewer images.
    """
    number = 0
    for boxes in _stream(path, 'bbox.item'):
        if number < len(images):
            yield images[number]['id'], _as_boxes(boxes, path, number)
        number += 1
    if number != len(images):
        raise ValueError(
            f"'{path}' has the boxes of {number} images, and the annotation "
            f'file lists {len(images)}: they are not of one data set')


def read_coco_results(
        path: PathLike,
        images: Sequence[dict]) -> Iterator[tuple[int, np.ndarray]]:
    """COCO's results JSON, ``[{"image_id", "bbox": [x, y, w, h], "score"},
    ...]``, the best score first. Read as a stream; the boxes are held in
    memory, 24 bytes each.

    Args:
        path (str or PathLike): The file.
        images (Sequence[dict]): The ``images`` of the COCO json.

    Yields:
        tuple[int, np.ndarray]: Image id, and its boxes (N, 4) xywh; each
        image once.

    Raises:
        ValueError: It is not such a file, is cut short, or has boxes of an
            image that is not listed.
    """
    index = {image['id']: i for i, image in enumerate(images)}
    rows, parts = [], []
    for number, entry in enumerate(_stream(path, 'item')):
        try:
            image_id = entry['image_id']
            row = (index.get(image_id, -1), entry.get('score', 0),
                   *entry['bbox'])
            if len(row) != 6:
                raise ValueError(f'bbox has {len(row) - 2} numbers')
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            raise ValueError(
                f"entry {number} of '{path}' is not a COCO result "
                f"({type(e).__name__}: {e}): it needs 'image_id', 'bbox' and "
                "'score'") from None
        if row[0] < 0:
            raise ValueError(
                f"'{path}' has boxes of image id {image_id}, which is not "
                f'among the {len(images)} images of the annotation file: '
                'they are not of one data set')
        rows.append(row)
        if len(rows) == 100_000:
            parts.append(np.array(rows, dtype=np.float32))
            rows.clear()
    table = np.concatenate(
        [*parts, np.array(rows, dtype=np.float32).reshape(-1, 6)])
    # float32 holds every whole number up to 2**24, and so an index.
    order = np.lexsort((-table[:, 1], table[:, 0]))
    starts = np.searchsorted(table[order, 0], np.arange(len(images) + 1))
    for i, image in enumerate(images):
        yield image['id'], table[order[starts[i]:starts[i + 1]],
                                 2:].astype(np.float64)


def read_pickle(path: PathLike,
                images: Sequence[dict]) -> Iterator[tuple[int, np.ndarray]]:
    """The earlier reproduction's pickle, ``{"bbox": {file name: boxes}}``,
    the boxes xywh as a list, a NumPy array or a tensor; also as
    ``torch.save`` writes it. Nothing in it is executed.

    Args:
        path (str or PathLike): The file.
        images (Sequence[dict]): The ``images`` of the COCO json. A file name
            fits with or without its folder.

    Yields:
        tuple[int, np.ndarray]: Image id, and its boxes (N, 4) xywh.

    Raises:
        ValueError: It is not such a file, is cut short, holds what is not
            admitted, or has the boxes of other images.
    """
    content = load_pickle(path)
    boxes = content.get('bbox') if isinstance(content, dict) else None
    if not isinstance(boxes, dict):
        raise ValueError(f"'{path}' holds no {{'bbox': {{file name: boxes}}}}:"
                         ' convert_proposals.py -h tells the formats')
    by_name = {os.path.basename(name): value for name, value in boxes.items()}
    by_name.update(boxes)
    if len(boxes) != len(images):
        raise ValueError(
            f"'{path}' has the boxes of {len(boxes)} images, and the "
            f'annotation file lists {len(images)}: they are not of one data '
            'set')
    for image in images:
        name = image['file_name']
        found = by_name.get(name, by_name.get(os.path.basename(name)))
        if found is None:
            raise ValueError(f"'{path}' has no boxes of '{name}': it is of "
                             'other images than the annotation file')
        yield image['id'], _as_boxes(found, path, name)


READERS = dict(orl=read_orl, pickle=read_pickle, coco=read_coco_results)


def import_proposals(source_format: str,
                     source: PathLike,
                     images: Sequence[dict],
                     out: PathLike,
                     rules: ProposalRules,
                     top_n: Optional[int] = None,
                     ann_name: str = '',
                     workers: Optional[int] = None) -> Counts:
    """Write a proposal file from proposals that others made, with a progress
    bar.

    Args:
        source_format (str): 'orl', 'pickle' or 'coco'.
        source (str or PathLike): The file to read.
        images (Sequence[dict]): The ``images`` of the COCO json, with their
            ``width`` and ``height``.
        out (str or PathLike): The proposal file, ending in ``.npz``. It
            appears whole or not at all.
        rules (ProposalRules): The three rules.
        top_n (int, optional): Keep at most that many boxes of an image.
            Defaults to None, all.
        ann_name (str): What the file is to say of the json. Defaults to ''.
        workers (int, optional): Processes that filter. Defaults to None, one
            for each core that this process may use.

    Returns:
        Counts: What became of the boxes.

    Raises:
        FileNotFoundError: There is no ``source``.
        ValueError: The source is not what it should be, see the readers, or
            holds no box.
    """
    out = check_path(out)
    if source_format not in READERS:
        raise ValueError(f"there is no format '{source_format}': choose one "
                         f'of {", ".join(READERS)}')
    if not Path(source).is_file():
        raise FileNotFoundError(f"there is no file '{source}' to import")
    sizes = _sizes_of(images)
    counts, kept = Counts(), {}
    # One process reads, which no other can do for it; the others filter.
    work = partial(_clean_and_filter, rules=rules, top_n=top_n)
    tasks = _in_batches(
        (image_id, boxes, *sizes[image_id])
        for image_id, boxes in READERS[source_format](source, images))
    with track((), total=len(images)) as bar:
        for _, (boxes, found) in map_unordered(work, tasks, workers):
            kept.update(boxes)
            counts += found
            bar.update(len(boxes))
    if counts.read == 0:
        raise ValueError(f"there is no box in '{source}' where "
                         f"'{source_format}' has them: "
                         'convert_proposals.py -h tells the formats')
    write_proposals(
        out, kept,
        dict(
            method=f'imported from {source_format}',
            imported_from=Path(source).name,
            rules=rules.as_dict(),
            top_n=top_n,
            source=ann_name,
            versions=dict(univip_mm=__version__),
            boxes=asdict(counts)),
        {image['id']: image['file_name'] for image in images})
    return counts


def _in_batches(found: Iterator, size: int = 32) -> Iterator[list]:
    """Lists of at most ``size`` items: a process is given work seldom."""
    found = iter(found)
    while batch := list(itertools.islice(found, size)):
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
        raise ValueError(f"an image of the annotation file has no {e}: the "
                         'boxes cannot be held against its size') from None


def _as_boxes(boxes, path: PathLike, which) -> np.ndarray:
    """A list, array or tensor of boxes as (N, 4) float64; a missing number
    becomes NaN."""
    try:
        if hasattr(boxes, 'detach'):  # a tensor
            boxes = boxes.detach().numpy()
        array = np.asarray(boxes, dtype=np.float64)
        if array.size == 0:
            return np.zeros((0, 4))
        if array.ndim != 2 or array.shape[1] != 4:
            raise ValueError(f'its shape is {array.shape}')
    except (ValueError, TypeError) as e:
        raise ValueError(f"the boxes of image {which!r} in '{path}' are not a "
                         f'list of [x, y, w, h] ({e})') from None
    return array


def _stream(path: PathLike, prefix: str) -> Iterator:
    """The values below a prefix of a JSON file, one after the other."""
    try:
        import ijson
    except ImportError:
        raise ImportError('reading large JSON files needs ijson: '
                          "'pip install ijson'") from None
    with open(path, 'rb') as file:
        try:
            yield from ijson.items(file, prefix, use_float=True)
        except ijson.JSONError as e:
            reason = ' '.join(str(e).split())
            raise ValueError(f"'{path}' is not JSON, or is cut short, after "
                             f'{file.tell()} bytes: {reason[:120]}') from None


def load_pickle(path: PathLike):
    """Load a pickle of builtin containers, NumPy arrays and torch tensors.

    Raises:
        ValueError: It names anything else, is no pickle, or is cut short.
    """
    with open(path, 'rb') as file:
        start = file.read(2)
        file.seek(0)
        try:
            if start == b'PK':  # torch.save's container
                return _load_tensors(file)
            return _SafeUnpickler(file).load()
        except _RefusedError as e:
            raise ValueError(
                f"'{path}' holds {e}, which is not admitted: a pickle of "
                'boxes needs no more than builtin containers, NumPy arrays '
                'and torch tensors') from None
        except Exception as e:
            reason = ' '.join(str(e).split())[:120]
            raise ValueError(f"'{path}' is not a pickle of boxes, or is cut "
                             f'short: {type(e).__name__}: {reason}') from None


class _RefusedError(Exception):
    pass


def _load_tensors(file):
    from ..utils.safe_pickle import load  # PyTorch is slow to import
    return load(file, 'cpu')


def _load_storage(data: bytes):
    """In place of ``torch.storage._load_from_bytes``, which loads any
    pickle."""
    return _load_tensors(io.BytesIO(data))


def _rebuild_tensor(*args):
    import torch
    return torch._utils._rebuild_tensor_v2(*args)


def _encode(text: str, encoding: str) -> bytes:
    """In place of ``codecs.encode``, by which old pickles hold bytes."""
    if encoding != 'latin1':
        raise _RefusedError(f'_codecs.encode to {encoding}')
    return codecs.encode(text, encoding)


class _Dtype:
    """In place of ``numpy.dtype``, whose state can be forged: a plain number
    of a byte order."""

    def __init__(self, text: str, *_) -> None:
        if not isinstance(text, str) or not re.fullmatch(
                '[<>=|]?[biuf][1248]', text):
            raise _RefusedError(f'numpy.dtype {text!r}')
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """In place of ``numpy.ndarray``, whose state can be forged."""

    def __init__(self, *_) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        order = 'F' if is_fortran else 'C'
        self.array = _from_buffer(content, dtype, shape, order).array

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


def _from_buffer(content, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.array = np.frombuffer(content, dtype.dtype).reshape(
        shape, order=order)
    return array


def _scalar(dtype: _Dtype, content: bytes):
    return np.frombuffer(content, dtype.dtype)[0]


def _admitted() -> dict:
    admitted = {
        ('collections', 'OrderedDict'): OrderedDict,
        ('_codecs', 'encode'): _encode,
        ('numpy', 'ndarray'): _Array,
        ('numpy', 'dtype'): _Dtype,
        ('torch.storage', '_load_from_bytes'): _load_storage,
        ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    }
    for package in ('numpy.core', 'numpy._core'):
        admitted[f'{package}.multiarray', '_reconstruct'] = _Array
        admitted[f'{package}.multiarray', 'scalar'] = _scalar
        admitted[f'{package}.numeric', '_frombuffer'] = _from_buffer
    for kind in (bytearray, bytes, dict, float, frozenset, int, list, set,
                 tuple):
        for module in ('builtins', '__builtin__'):
            admitted[module, kind.__name__] = kind
    return admitted


class _SafeUnpickler(pickle.Unpickler):
    """Knows nothing but the admitted names."""
    _names = _admitted()

    def find_class(self, module: str, name: str):
        try:
            return self._names[module, name]
        except KeyError:
            raise _RefusedError(f'{module}.{name}') from None
