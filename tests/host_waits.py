"""Record the places at which the host reads a tensor of the device.

On a CPU, nothing waits, but the operations are the same: `item`, `bool` and
the like run `aten::_local_scalar_dense`.
"""
import traceback
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OPERATIONS = ('aten::_local_scalar_dense', 'aten::nonzero',
              'aten::masked_select')
METHODS = (torch.Tensor.cpu, torch.Tensor.tolist)
PACKAGES = ('univip_mm', 'mmengine', 'mmpretrain', 'mmselfsup')


class _Operations(TorchDispatchMode):

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in OPERATIONS or _has_mask_index(name, args):
            self.waits.append(f'{name} at {_place()}')
        return func(*args, **kwargs or {})


def _has_mask_index(name, args) -> bool:
    """Return True for an index of type bool, whose size the host reads."""
    return name.startswith('aten::index') and any(
        isinstance(x, torch.Tensor) and x.dtype == torch.bool
        for part in args[1:2] if isinstance(part, (list, tuple))
        for x in part)


class _Methods(TorchFunctionMode):

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in METHODS or func is torch.Tensor.to and 'cpu' in args[1:]:
            self.waits.append(f'Tensor.{func.__name__} at {_place()}')
        return func(*args, **kwargs or {})


def _place() -> str:
    """Return the innermost line outside of PyTorch."""
    frames = [x for x in traceback.extract_stack()
              if any(f'/{package}/' in x.filename for package in PACKAGES)]
    frame = frames[-1] if frames else traceback.extract_stack()[0]
    return f'{frame.filename}:{frame.lineno}: {frame.line}'


@contextmanager
def recorded_waits():
    """Return a list that gets a text for each read inside the block."""
    waits = []
    with _Operations(waits), _Methods(waits):
        yield waits
