"""Checkpoints under PyTorch before 2.6, whose ``weights_only`` is off by
default, cannot be taught MMEngine's types, and has a hole (CVE-2025-32434)."""
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

# What PyTorch's own `weights_only` admits and checkpoints need. Storages are
# PyTorch's affair: they never come as far as here.
TENSORS = {
    'collections.OrderedDict': OrderedDict,
    'torch.Size': torch.Size,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
}

# The states of NumPy's numbers. Another one would have their size forged.
PLAIN = [(3, order, None, None, None, -1, -1, 0) for order in '<>|']


def load(path: str, map_location: Any, admitted: dict[str, Any]) -> Any:
    """A file of ``torch.save``, as ``torch.load(weights_only=True)`` of
    PyTorch 2.6 loads it.

    Args:
        path (str): The file.
        map_location: As of ``torch.load``.
        admitted (dict): What the file may name beyond tensors: for each name,
            with its module, what it stands for.

    Raises:
        UnpicklingError: It names something else, or is not of
            ``torch.save``'s own formats.
    """
    if _is_of_another_loader(path):
        raise pickle.UnpicklingError(
            'Unsupported format, TorchScript or tar')
    names = {**TENSORS, **admitted}
    states = tuple(x for x in names.values() if isinstance(x, type))

    # The one in Python: that in C does not let BUILD be looked at.
    class Unpickler(pickle._Unpickler):
        dispatch = dict(pickle._Unpickler.dispatch)

        def find_class(self, module: str, name: str) -> Any:
            module = module.replace('__builtin__', 'builtins')
            try:
                return names[f'{module}.{name}']
            except KeyError:
                raise pickle.UnpicklingError(
                    f'Unsupported global: {module}.{name} was not admitted'
                ) from None

        def load_build(self) -> None:
            # It sets attributes: of what was made, not of what it is made by.
            made, state = self.stack[-2:]
            if not isinstance(made, states) or (
                    isinstance(made, np.dtype) and state not in PLAIN):
                raise pickle.UnpicklingError(f'Unsupported state of {made!r}')
            super().load_build()

        dispatch[pickle.BUILD[0]] = load_build

    module = SimpleNamespace(
        __name__='pickle', Unpickler=Unpickler,
        load=lambda file, **options: Unpickler(file, **options).load())
    return torch.load(path, map_location=map_location, pickle_module=module)


def _is_of_another_loader(path: str) -> bool:
    """Whether PyTorch would leave the file to TorchScript, or unpack it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.split('/')[-1] == 'constants.pkl'
                       for name in archive.namelist())
    return tarfile.is_tarfile(path)
