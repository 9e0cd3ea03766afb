"""Load files of ``torch.save`` without executing code in them.

The same idea as ``torch.load(weights_only=True)``, but with the same result in
every PyTorch version. Before 2.6, ``weights_only`` has no way to allow
MMEngine's types, and TorchScript files bypass it (CVE-2025-32434). In all
versions, allowing NumPy arrays lets a file forge a dtype of object addresses.
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
    """Replace ``getattr`` for the four statistics of a HistoryBuffer.

    A HistoryBuffer pickles its statistics as attributes of its class, so the
    pickle needs the builtin ``getattr``. The builtin itself must not be
    allowed, because it gives access to any object.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'Unsupported attribute: {owner}.{name} was not allowed')


def _bytes_of(text: str, encoding: str) -> bytes:
    """Replace ``codecs.encode``, which a pickle uses to store bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'Unsupported codec {encoding}')
    return text.encode('latin1')


def _dtype_of(text: str, *_) -> np.dtype:
    """Replace ``numpy.dtype`` for numbers; return a copy.

    The pickle sets the state of the dtype next, which must not change NumPy's
    own object.
    """
    if not isinstance(text, str) or not re.fullmatch('[biufc][0-9]+', text):
        raise pickle.UnpicklingError(f'Unsupported dtype {text!r}')
    return np.dtype(text, False, True)


# Valid states of a numeric dtype. Any other state turns it into another type.
STATES = [(3, order, None, None, None, -1, -1, 0) for order in '<>|']

# Names that a checkpoint may use, with their replacements. PyTorch handles
# the storages of tensors before this table is used.
ALLOWED = {
    'builtins.getattr': _history_buffer_method,
    'builtins.set': set,
    'collections.Counter': Counter,  # milestones of schedulers
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
for _core in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
    ALLOWED[f'{_core}.multiarray._reconstruct'] = _reconstruct
    ALLOWED[f'{_core}.multiarray.scalar'] = scalar
for _value in vars(torch).values():
    if isinstance(_value, torch.dtype):
        ALLOWED[str(_value)] = _value

# Types whose instances may get a state by the opcode BUILD. A class is never
# an instance of them, so no class can be changed.
BUILT = (HistoryBuffer, OrderedDict, np.ndarray, torch.nn.Parameter)


# The Python version, because the C version does not expose BUILD.
class Unpickler(pickle._Unpickler):
    """Unpickler that allows only the names in :data:`ALLOWED`."""
    dispatch = dict(pickle._Unpickler.dispatch)

    def load(self) -> Any:
        """Return the object; raise UnpicklingError if it is not allowed."""
        try:
            return super().load()
        except KeyError as e:  # an unknown opcode
            raise pickle.UnpicklingError(
                f'not a pickle: byte {e} has no meaning') from None

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a global name."""
        module = module.replace('__builtin__', 'builtins')
        try:
            return ALLOWED[f'{module}.{name}']
        except KeyError:
            raise pickle.UnpicklingError(
                f'Unsupported global: {module}.{name} was not allowed'
            ) from None

    def load_build(self) -> None:
        """Set the state of an instance whose type allows this."""
        instance, state = self.stack[-2:]
        if not isinstance(instance, BUILT) and not (
                isinstance(instance, np.dtype) and state in STATES):
            raise pickle.UnpicklingError(f'Unsupported state of {instance!r}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


_MODULE = SimpleNamespace(
    __name__='pickle', Unpickler=Unpickler,
    load=lambda file, **options: Unpickler(file, **options).load())


def load(file: Union[str, IO[bytes]], map_location: Any) -> Any:
    """Return the content of a path, or of an open file at its start.

    Raises:
        UnpicklingError: The file uses a name that is not in
            :data:`ALLOWED`, or a format other than those of ``torch.save``.
    """
    if _is_torchscript_or_tar(file):
        raise pickle.UnpicklingError('Unsupported format, TorchScript or tar')
    with mock.patch.dict(os.environ):
        # This unpickler is as strict as the variable asks for, but PyTorch
        # would refuse it.
        os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)
        return torch.load(
            file, map_location=map_location, weights_only=False,
            pickle_module=_MODULE)


def _is_torchscript_or_tar(file: Union[str, IO[bytes]]) -> bool:
    """Return True if PyTorch would not use our unpickler for the file."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            return _is_torchscript_or_tar(opened)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            found = any(name.split('/')[-1] == 'constants.pkl'
                        for name in archive.namelist())
    else:
        file.seek(0)
        found = tarfile.is_tarfile(file)
    file.seek(0)
    return found
