"""Loader for pickles of boxes that executes no code in the file.

Only the names in :func:`_allowed_names` can be loaded. Functions and classes
whose arguments or state can be forged are replaced with safe ones.
"""
import io
import pickle
import re
from collections import OrderedDict
from typing import IO, Any

import numpy as np

from ..io.atomic import PathLike


class _ForbiddenError(Exception):
    """Error of a name or value that a pickle of boxes must not have."""


def load_pickle(path: PathLike) -> Any:
    """Load a file of ``pickle.dump`` or ``torch.save``.

    In place of NumPy arrays, the content has objects that ``np.asarray``
    converts to the arrays.

    Raises:
        ValueError: The file has other content, is not a pickle, or is
            truncated.
    """
    with open(path, 'rb') as file:
        start = file.read(2)
        file.seek(0)
        try:
            if start == b'PK':  # the zip file of torch.save
                return _load_torch_file(file)
            return _BoxUnpickler(file).load()
        except _ForbiddenError as e:
            raise ValueError(
                f"'{path}' has {e}, which is not allowed: a pickle of boxes "
                'has only builtin containers, NumPy arrays and torch tensors'
            ) from None
        except Exception as e:
            reason = ' '.join(str(e).split())[:120]
            raise ValueError(f"'{path}' is not a pickle of boxes, or is "
                             f'truncated: {type(e).__name__}: {reason}'
                             ) from None


def _load_torch_file(file: IO[bytes]) -> Any:
    raise ValueError('files of torch.save are not supported')


def _load_storage(data: bytes) -> Any:
    """Replace ``torch.storage._load_from_bytes``, which loads any pickle."""
    return _load_torch_file(io.BytesIO(data))


def _rebuild_tensor(*args) -> Any:
    import torch
    return torch._utils._rebuild_tensor_v2(*args)


def _encode(text: str, encoding: str) -> bytes:
    """Replace ``codecs.encode``, which old pickles call to store bytes."""
    if encoding != 'latin1':
        raise _ForbiddenError(f'_codecs.encode to {encoding}')
    return text.encode(encoding)


class _Dtype:
    """Replacement of ``numpy.dtype``, limited to numbers."""

    def __init__(self, text: str, *_) -> None:
        if not isinstance(text, str) or not re.fullmatch(
                '[<>=|]?[biuf][1248]', text):
            raise _ForbiddenError(f'numpy.dtype {text!r}')
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        # Use the byte order only: the rest of the state can be forged.
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Replacement of ``numpy.ndarray``, whose state can be forged."""

    def __init__(self, *_) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        order = 'F' if is_fortran else 'C'
        self.array = _from_buffer(content, dtype, shape, order).array

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple,
                 order: Any) -> _Array:
    result = _Array()
    result.array = np.frombuffer(content, dtype.dtype).reshape(
        shape, order=order)
    return result


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype.dtype)[0]


def _allowed_names() -> dict[str, Any]:
    allowed = {
        'collections.OrderedDict': OrderedDict,
        '_codecs.encode': _encode,
        'numpy.ndarray': _Array,
        'numpy.dtype': _Dtype,
        'torch.storage._load_from_bytes': _load_storage,
        'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    }
    for package in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
        allowed[f'{package}.multiarray._reconstruct'] = _Array
        allowed[f'{package}.multiarray.scalar'] = _scalar
        allowed[f'{package}.numeric._frombuffer'] = _from_buffer
    for kind in (bytearray, bytes, dict, float, frozenset, int, list, set,
                 tuple):
        for module in ('builtins', '__builtin__'):  # Python 3 and 2
            allowed[f'{module}.{kind.__name__}'] = kind
    return allowed


class _BoxUnpickler(pickle.Unpickler):
    """Unpickler that loads the allowed names only."""
    _names = _allowed_names()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._names[f'{module}.{name}']
        except KeyError:
            raise _ForbiddenError(f'{module}.{name}') from None
