"""Streaming of large JSON files with bounded memory."""
import re
from collections.abc import Iterator
from typing import IO

import numpy as np

from ..io.atomic import PathLike
from ..io.files import open_regular

MAX_DEPTH = 16  # boxes need 4, polygons and masks 6
MAX_ITEM_BYTES = 2**24  # an image with about a million boxes

_ESCAPE = re.compile(rb'\\.', re.DOTALL)
_QUOTE = ord('"')
_OTHER_BYTES = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = np.zeros(256, np.int8)  # of the depth, for each byte
_STEPS[[*b'[{']] = 1
_STEPS[[*b']}']] = -1


class _TooLargeError(ValueError):
    """Error of JSON that would fill the memory."""


def stream_json(path: PathLike, prefix: str) -> Iterator:
    """Yield the values below a prefix of a JSON file, such as 'bbox.item'.

    Raises:
        ImportError: ijson is missing.
        ValueError: The file is not regular, not JSON, truncated, or made to
            fill the memory.
    """
    try:
        import ijson
    except ImportError:
        raise ImportError('large JSON files are read with ijson: '
                          "'pip install ijson'") from None
    with open_regular(path) as file:
        try:
            yield from ijson.items(_BoundedReader(file, prefix.count('.') + 1),
                                   prefix, use_float=True)
        except _TooLargeError as e:
            raise ValueError(
                f"'{path}' has no proposals in this format ({e}): see "
                "'convert_proposals.py -h' for the formats") from None
        except (ijson.JSONError, ValueError, OverflowError) as e:
            reason = ' '.join(str(e).split())
            raise ValueError(f"'{path}' is not JSON, or is truncated, after "
                             f'{file.tell()} bytes: {reason[:120]}') from None


class _BoundedReader:
    """Reader that stops before the parser needs much memory.

    The parser's memory grows with the square of the depth, and with the bytes
    of an item. ``item_depth`` is the number of open lists and objects around
    an item.
    """

    def __init__(self, file: IO[bytes], item_depth: int) -> None:
        self._file = file
        self._item_depth = item_depth
        self._depth = 0
        self._item_bytes = 0
        self._in_string = False
        self._escape = b''

    def read(self, size: int = -1) -> bytes:
        """Read a chunk; raise ValueError if it goes too deep or too long."""
        chunk = self._file.read(size)
        steps = self._depth_steps(chunk)
        depths = self._depth + np.cumsum(steps, dtype=np.int64)
        if depths.max(initial=0) > MAX_DEPTH:
            raise _TooLargeError(f'nested more than {MAX_DEPTH} levels deep')
        if steps.any() and depths.min() <= self._item_depth:
            self._item_bytes = 0
        self._depth += int(steps.sum())
        self._item_bytes += len(chunk)
        if self._item_bytes > MAX_ITEM_BYTES:
            raise _TooLargeError(
                f'an item of more than {MAX_ITEM_BYTES} bytes')
        return chunk

    def _depth_steps(self, chunk: bytes) -> np.ndarray:
        """Return 1 or -1 for each bracket, and 0 within strings."""
        text, self._escape = self._escape + chunk, b''
        if b'\\' in text:
            text = _ESCAPE.sub(b'', text)
            if text.endswith(b'\\'):
                self._escape = b'\\'
        marks = np.frombuffer(text.translate(None, _OTHER_BYTES), np.uint8)
        inside = (self._in_string + np.cumsum(marks == _QUOTE)) % 2 == 1
        if len(marks):
            self._in_string = bool(inside[-1])
        return np.where(inside, 0, _STEPS[marks])
