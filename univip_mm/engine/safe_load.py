"""Read files of ``torch.save`` without executing code in them.

PyTorch's own ``weights_only`` reader reads the files. It refuses the log
buffers and NumPy numbers in checkpoints of MMEngine, so the names of these
types are registered with stand-ins. A stand-in only records what the file
gives it: nothing of the file reaches NumPy or MMEngine while it is read.
Afterwards, :class:`_Converter` checks the recorded values, and makes the
arrays and buffers from them.
"""
import functools
import logging
import math
import os
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, ClassVar, NoReturn, Optional, Union

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.logging.history_buffer import HistoryBuffer

from ..hosts.versions import reader_fault, reader_refusal
from ..utils.text import printable


class CheckpointError(ValueError, UnpicklingError):
    """Error of a file that cannot be read; the message is one line.

    The tools report a ValueError in one line before a Runner starts, and an
    UnpicklingError afterwards.

    Args:
        message (str): Message.
        reason (str): Short reason, without the path and the cure.
    """

    def __init__(self, message: str, reason: str = '') -> None:
        super().__init__(message)
        self.reason = reason or message


class _StandIn:
    """Record of a call in the file: arguments, and state of the result.

    The slots and ``__setstate__`` keep a file from setting other attributes.
    """
    __slots__ = ('args', 'state')

    def __new__(cls, *args: Any) -> '_StandIn':
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Bytes(_StandIn):
    """Stand-in of ``bytes``, which a pickle calls for empty content."""
    __slots__ = ()


class _Getattr(_StandIn):
    """Stand-in of ``getattr``, used for the statistics of a HistoryBuffer."""
    __slots__ = ()


class _Dtype(_StandIn):
    """Stand-in of ``numpy.dtype``."""
    __slots__ = ()


class _Ndarray(_StandIn):
    """Stand-in of ``numpy.ndarray``, which is an argument of ``_Array``."""
    __slots__ = ()


class _Array(_StandIn):
    """Stand-in of NumPy's ``_reconstruct``, whose result gets a state."""
    __slots__ = ()


class _Scalar(_StandIn):
    """Stand-in of NumPy's ``scalar``."""
    __slots__ = ()


class _Buffer(_StandIn):
    """Stand-in of ``HistoryBuffer``."""
    __slots__ = ()


_STAND_INS: list = [
    (_Bytes, 'builtins.bytes'),
    (_Getattr, 'builtins.getattr'),
    (_Dtype, 'numpy.dtype'),
    (_Ndarray, 'numpy.ndarray'),
    (_Buffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    *((stand_in, f'{core}.multiarray.{name}')
      for core in ('numpy.core', 'numpy._core')  # NumPy 1 and 2
      for stand_in, name in ((_Array, '_reconstruct'), (_Scalar, 'scalar')))]

TRUNCATED = 'the end of the file is missing'
_PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None),
          torch.dtype, torch.device, torch.Size)
_KEYS = (bool, int, float, str, bytes, type(None), tuple)
_MAX_DEPTH = 100
_MAX_VALUES = 10_000_000


def load(path: Union[str, os.PathLike], map_location: Any = 'cpu',
         only_structure: bool = False) -> Any:
    """Return the content of a file of ``torch.save``.

    Args:
        path (str or PathLike): Local file.
        map_location: The same as in ``torch.load``.
        only_structure (bool): Do not read the data of tensors if the format
            allows this. The tensors must not be used then: if the file is
            truncated in the meantime, reading them ends the process.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is not a checkpoint, is truncated, or has
            content that is not allowed; or this PyTorch cannot read safely.
    """
    name = printable(path)
    check_reader(path)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"there is no checkpoint '{name}': check the path")
    if not os.path.isfile(path):  # a pipe would block
        raise CheckpointError(f"'{name}' is not a file: give a checkpoint")
    _warn_once(reader_fault(torch.__version__))
    try:
        with open(path, 'rb') as file:
            is_zip = file.read(4) == b'PK\x03\x04'  # PyTorch's own test
        with _only_stand_ins(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the error has the reason
            if is_zip:
                # Refuses compressed content, which can be huge.
                content = torch.load(os.fspath(path), map_location='cpu',
                                     weights_only=True, mmap=True)
            if not is_zip or not only_structure:
                content = torch.load(os.fspath(path), weights_only=True,
                                     map_location=map_location)
        return _Converter()(content)
    except Exception as e:  # also what PyTorch raises for malformed files
        raise CheckpointError(
            _describe_refusal(path, e), _reason(e)) from None


def check_reader(path: Union[str, os.PathLike]) -> None:
    """Raise CheckpointError if this PyTorch cannot read the file safely."""
    refusal = reader_refusal(torch.__version__)
    if refusal:
        raise CheckpointError(f"cannot read '{printable(path)}': {refusal}")


def _describe_refusal(path: Union[str, os.PathLike],
                      error: Exception) -> str:
    """Return one line that says why a checkpoint was not loaded."""
    name, reason = printable(path), _reason(error)
    if reason == TRUNCATED:
        return f"'{name}' is truncated ({reason}): give a complete file"
    if reason.startswith(('Unsupported', 'Trying to load unsupported')):
        return (f"'{name}' is refused ({reason}): it has content that no "
                'checkpoint needs and that could run code; use only files '
                'that you or people you trust have written')
    return (f"'{name}' is not a checkpoint ({reason}): give a file that "
            'tools/train.py or tools/extract_backbone.py has written')


def _reason(error: Exception) -> str:
    # PyTorch adds a page of advice to the one sentence that matters.
    text = str(error) or type(error).__name__
    if 'finding central directory' in text or isinstance(error, EOFError):
        return TRUNCATED
    if isinstance(error, LookupError) or 'Unsupported operand' in text:
        return 'no file of torch.save'  # a byte that has no meaning
    found = re.search(
        r'((Trying to load u|U)nsupported .*?)( was not|\. |\.?\n|$)', text
    ) or re.search('WeightsUnpickler error: (.+)', text)
    reason = found.group(1) if found else text.split('. ')[0].split('\n')[0]
    return printable(reason[:200])


@functools.cache
def _warn_once(text: str) -> None:
    if text:
        print_log(text, logger='current', level=logging.WARNING)


@contextmanager
def _only_stand_ins() -> Iterator[None]:
    """Allow our stand-ins, and no name that other code has allowed."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(_STAND_INS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _refuse(what: str) -> NoReturn:
    raise UnpicklingError(f'Unsupported {what}')


class _Converter:
    """Copy of a loaded object without stand-ins and foreign attributes.

    PyTorch's reader lets a file set any attribute of an OrderedDict or a
    tensor, also such as NumPy would use as an address. So all containers and
    tensors are made anew. Tensors keep sharing their memory.
    """

    def __init__(self) -> None:
        # Original, copy and number of values by id. The originals are kept,
        # so that their ids are not used again.
        self.done: dict[int, tuple[Any, Any, int]] = {}
        self.depth = self.values = 0

    def __call__(self, value: Any) -> Any:
        """Return the copy of a value.

        Raises:
            UnpicklingError: The value or one inside it is not allowed.
        """
        # Values count as often as they are used: a list of the same two lists
        # of the same two lists ... is small in the file only.
        self.values += 1
        if self.values > _MAX_VALUES:
            _refuse(f'content of more than {_MAX_VALUES} values')
        kind = type(value)
        if kind in _PLAIN:
            return value
        if id(value) in self.done:
            _, result, number = self.done[id(value)]
            self.values += number
            return result
        convert = self._CONVERTERS.get(kind)
        if convert is None:
            _refuse(f'value of type {kind.__name__}')
        self.depth += 1  # also ends at a list that contains itself
        if self.depth > _MAX_DEPTH:
            _refuse(f'nesting of more than {_MAX_DEPTH} levels')
        before = self.values
        result = convert(self, value)
        self.depth -= 1
        self.done[id(value)] = value, result, self.values - before
        return result

    def _key(self, value: Any) -> Any:
        key = self(value)
        if type(key) not in _KEYS:
            _refuse(f'dict key of type {type(key).__name__}')
        return key

    def _list(self, value: list) -> list:
        return list(map(self, value))

    def _dict(self, value: dict) -> dict:
        return {self._key(k): self(v) for k, v in value.items()}

    def _ordered_dict(self, value: OrderedDict) -> OrderedDict:
        # Not value.items(): the file can set an attribute `items`.
        result: Any = OrderedDict(
            (self._key(key), self(OrderedDict.__getitem__(value, key)))
            for key in OrderedDict.__iter__(value))
        metadata = vars(value).get('_metadata')  # of a state dict
        if metadata is not None:
            result._metadata = self(metadata)
        return result

    def _counter(self, value: Counter) -> Counter:
        return Counter({self._key(key): self(dict.__getitem__(value, key))
                        for key in dict.__iter__(value)})

    def _tuple(self, value: tuple) -> tuple:
        return tuple(map(self, value))

    def _set(self, value: set) -> set:
        return set(map(self._key, value))

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        # Not value.detach(): the file can set an attribute `detach`.
        return torch.Tensor.detach(value).requires_grad_(value.requires_grad)

    def _parameter(self, value: torch.nn.Parameter) -> torch.nn.Parameter:
        return torch.nn.Parameter(
            torch.Tensor.detach(value), value.requires_grad)

    def _bytes(self, value: _Bytes) -> bytes:
        if value.args:
            _refuse('call of bytes')
        return b''

    def _getattr(self, value: _Getattr) -> str:
        """Return the name of a statistic: no content is a function."""
        if len(value.args) != 2 or value.args[0] is not _Buffer or (
                value.args[1] not in ('min', 'max', 'mean', 'current')):
            _refuse('attribute of an object')
        return value.args[1]

    def _dtype(self, value: Any) -> np.dtype:
        """Return a numeric dtype; only its byte order is from the state."""
        text = value.args[0] if type(value) is _Dtype and value.args else None
        if type(text) is not str:
            _refuse('dtype')
        if not re.fullmatch('b1|[iu][1248]|f[248]|c8|c16', text):
            _refuse(f'dtype {text!r}')
        state = value.state
        if (type(state) is tuple and len(state) > 1
                and state[1] in ('<', '>')):
            return np.dtype(text).newbyteorder(state[1])
        return np.dtype(text)

    def _array(self, value: _Array) -> np.ndarray:
        if type(value.state) is not tuple or len(value.state) != 5:
            _refuse('state of an array')
        return self._make_array(*value.state[1:])

    def _make_array(self, shape: Any, dtype: Any, is_fortran: Any,
                    content: Any) -> np.ndarray:
        """Return an array in native byte order from the bytes of a file."""
        numbers, content = self._dtype(dtype), self(content)
        if type(shape) is not tuple or len(shape) > 32 or not all(
                type(x) is int and x >= 0 for x in shape):
            _refuse('shape of an array')
        if type(content) is not bytes or len(content) != (
                math.prod(shape) * numbers.itemsize):
            _refuse('content of an array: its size does not match its shape')
        # A bool other than 0 and 1 is not valid for NumPy.
        raw = np.dtype('u1') if numbers.kind == 'b' else numbers
        array = np.frombuffer(content, raw).reshape(
            shape, order='F' if is_fortran is True else 'C')
        return array.astype(numbers.newbyteorder('='), order='K')

    def _scalar(self, value: _Scalar) -> Any:
        if len(value.args) != 2:
            _refuse('call of a NumPy scalar')
        dtype, content = value.args
        return self._make_array((), dtype, False, content).item()

    def _buffer(self, value: _Buffer) -> HistoryBuffer:
        state = self(value.state)
        if type(state) is not dict:
            _refuse('state of a HistoryBuffer')
        buffer = make_history(state.get('_log_history'), state.get(
            '_count_history'), state.get('max_length'))
        if buffer is None:
            _refuse('content of a HistoryBuffer')
        return buffer

    _CONVERTERS: ClassVar[dict[type, Callable]] = {
        list: _list, dict: _dict, OrderedDict: _ordered_dict,
        Counter: _counter, tuple: _tuple, set: _set,
        torch.Tensor: _tensor, torch.nn.Parameter: _parameter,
        _Bytes: _bytes, _Getattr: _getattr, _Dtype: _dtype, _Array: _array,
        _Scalar: _scalar, _Buffer: _buffer}


def has_data(value: Any) -> bool:
    """Return True for a tensor that is not larger than its memory.

    An expanded tensor is small in the file, but a copy of it can be huge.
    """
    return (type(value) is torch.Tensor and value.device.type != 'meta'
            and value.layout == torch.strided and not value.is_quantized
            and (value.numel() * value.element_size()
                 <= value.untyped_storage().nbytes()))


def make_history(values: Any, counts: Any,
                 max_length: Any) -> Optional[HistoryBuffer]:
    """Return a HistoryBuffer of two arrays, or None if they do not fit."""
    if (type(max_length) is not int or max_length < 1
            or not all(isinstance(x, np.ndarray) and x.ndim == 1
                       for x in (values, counts))
            or not len(values) == len(counts) <= max_length):
        return None
    return HistoryBuffer(values, counts, max_length)
