"""Files of ``torch.save``, read without executing anything in them.

As ``torch.load(weights_only=True)``, but the same with every PyTorch. Before
2.6 that one cannot be taught MMEngine's types, and can be got round by
TorchScript (CVE-2025-32434). With every one, teaching it NumPy's arrays lets a
file forge a type of numbers that holds addresses of objects.
"""
import os
import pickle
import re
import tarfile
import zipfile
from collections import Counter, OrderedDict
from types import SimpleNamespace
from typing import IO, Any, Union
from unittest import mock

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

try:
    from numpy._core.multiarray import _reconstruct, scalar
except ImportError:  # NumPy 1
    from numpy.core.multiarray import _reconstruct, scalar


def _history_buffer_method(owner: type, name: str) -> Any:
    """What stands in for ``getattr``.

    A HistoryBuffer pickles its four statistics as attributes of its class,
    so its pickle names the builtin ``getattr``, which must not be had: it
    leads from any object to any other.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'Unsupported attribute: {owner}.{name} was not admitted')


def _bytes_of(text: str, encoding: str) -> bytes:
    """What stands in for ``codecs.encode``, by which a pickle has bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'Unsupported codec {encoding}')
    return text.encode('latin1')


def _dtype_of(text: str, *_) -> np.dtype:
    """What stands in for ``numpy.dtype``: a number's, and a new one, since
    its state comes next."""
    if not isinstance(text, str) or not re.fullmatch('[biufc][0-9]+', text):
        raise pickle.UnpicklingError(f'Unsupported type of numbers {text!r}')
    return np.dtype(text, False, True)


# The states of a type of numbers. The other ones make it something else.
STATES = [(3, order, None, None, None, -1, -1, 0) for order in '<>|']

# What a checkpoint may name, and what that stands for. Storages of tensors
# are PyTorch's affair: they never come as far as here.
ADMITTED = {
    'builtins.getattr': _history_buffer_method,
    'builtins.set': set,
    'collections.Counter': Counter,  # of a scheduler's milestones
    'collections.OrderedDict': OrderedDict,
    '_codecs.encode': _bytes_of,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'numpy.dtype': _dtype_of,
    'numpy.ndarray': np.ndarray,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
}
for _core in ('numpy.core', 'numpy._core'):  # whichever wrote the file
    ADMITTED[f'{_core}.multiarray._reconstruct'] = _reconstruct
    ADMITTED[f'{_core}.multiarray.scalar'] = scalar
for _value in vars(torch).values():
    if isinstance(_value, torch.dtype):
        ADMITTED[str(_value)] = _value

# Of what BUILD may set the state: of instances, never of classes.
BUILT = (HistoryBuffer, OrderedDict, np.ndarray, torch.nn.Parameter)


# The one in Python: that in C does not let BUILD be looked at.
class Unpickler(pickle._Unpickler):
    """Knows :data:`ADMITTED` alone."""
    dispatch = dict(pickle._Unpickler.dispatch)

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as e:  # a byte that stands for nothing
            raise pickle.UnpicklingError(
                f'not a pickle: byte {e} has no meaning') from None

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace('__builtin__', 'builtins')
        try:
            return ADMITTED[f'{module}.{name}']
        except KeyError:
            raise pickle.UnpicklingError(
                f'Unsupported global: {module}.{name} was not admitted'
            ) from None

    def load_build(self) -> None:
        made, state = self.stack[-2:]
        if not isinstance(made, BUILT) and not (
                isinstance(made, np.dtype) and state in STATES):
            raise pickle.UnpicklingError(f'Unsupported state of {made!r}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


_MODULE = SimpleNamespace(
    __name__='pickle', Unpickler=Unpickler,
    load=lambda file, **options: Unpickler(file, **options).load())


def load(file: Union[str, IO[bytes]], map_location: Any) -> Any:
    """The content of a file.

    Args:
        file (str or file): Its path, or the file, open at its start.
        map_location: As of ``torch.load``.

    Raises:
        UnpicklingError: It names what is not in :data:`ADMITTED`, or is not
            of ``torch.save``'s own formats.
    """
    if _is_of_another_loader(file):
        raise pickle.UnpicklingError('Unsupported format, TorchScript or tar')
    with mock.patch.dict(os.environ):
        # It is obeyed here, by what PyTorch cannot know to be as safe.
        os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)
        return torch.load(
            file, map_location=map_location, weights_only=False,
            pickle_module=_MODULE)


def _is_of_another_loader(file: Union[str, IO[bytes]]) -> bool:
    """Whether PyTorch would leave the file to TorchScript, or unpack it."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            return _is_of_another_loader(opened)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            found = any(name.split('/')[-1] == 'constants.pkl'
                        for name in archive.namelist())
    else:
        file.seek(0)
        found = tarfile.is_tarfile(file)
    file.seek(0)
    return found
