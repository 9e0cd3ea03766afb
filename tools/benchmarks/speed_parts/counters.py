"""Counters of the operations of a step and of its reads from the device."""
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import univip_mm
from univip_mm.models import data_preprocessor

from .timing import device

OUR_FOLDER = Path(univip_mm.__file__).parent
LIBRARIES = [str(Path(torch.__file__).parent), str(Path(mock.__file__).parent),
             __file__]
# Operations whose result the host needs, or whose result's shape.
READS = {f'aten::{name}' for name in (
    '_local_scalar_dense', 'nonzero', 'masked_select', 'equal', '_unique2',
    'unique_dim', 'unique_consecutive')}
INDEXING = {'aten::index', 'aten::index_put', 'aten::index_put_'}
OTHER_STAGE = 'losses and the rest'


class StepCounter(TorchDispatchMode):
    """Counter of operations per stage and of host reads per place.

    Views are not counted: on a GPU, each of the other operations starts at
    least one kernel or copy, and costs the CPU time of the start.

    Attributes:
        operations (Counter): Number of operations per stage.
        reads (Counter): Number of host reads per ``file:line``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter = Counter()
        self.reads: Counter = Counter()
        self.stage = OTHER_STAGE

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.operations[self.stage] += not function.is_view
        if reads_from_device(function, args, kwargs):
            self.reads[_find_place()] += 1
        return function(*args, **kwargs)

    @contextmanager
    def watch(self, stages: dict[str, tuple]):
        """Set the stage while its method runs.

        ``stages`` has an object and the name of its method per stage.
        """
        with ExitStack() as stack:
            for stage, (owner, name) in stages.items():
                if hasattr(owner, name):
                    method = partial(self._call, stage, getattr(owner, name))
                    stack.enter_context(
                        mock.patch.object(owner, name, method))
            yield

    def _call(self, stage: str, method: Callable, *args, **kwargs):
        before, self.stage = self.stage, stage
        try:
            return method(*args, **kwargs)
        finally:
            self.stage = before


def reads_from_device(function: Any, args: tuple, kwargs: dict) -> bool:
    """Return True if the host waits for the result of an operation.

    Without a GPU, tensors that stay on the CPU in every training count too.
    """
    name = function._schema.name
    tensors = [x for x in args if isinstance(x, torch.Tensor)]
    if name == 'aten::_to_copy':
        to = kwargs.get('device')
        return (to is not None and to.type == 'cpu' != tensors[0].device.type
                and not kwargs.get('non_blocking'))
    if name == 'aten::copy_':
        to, source = (x.device.type for x in tensors[:2])
        return to == 'cpu' != source and not any(args[2:])
    if device() == 'cuda' and not any(x.is_cuda for x in tensors):
        return False
    masks = args[1] if name in INDEXING else []
    return name in READS or any(
        x is not None and x.dtype in (torch.bool, torch.uint8) for x in masks)


def count_step(step: Callable, stages: Optional[dict] = None) -> StepCounter:
    """Return the counts of a call, with the batch in one piece.

    On a CPU, the data preprocessor splits the batch; on a GPU, it does not.
    """
    with mock.patch.object(data_preprocessor, '_CPU_CHUNK_VALUES', 2**62), \
            StepCounter() as counter, counter.watch(stages or {}):
        step()
    return counter


def count_operations(function: Callable) -> int:
    """Return the number of operations of a call that are not views."""
    return sum(count_step(function).operations.values())


def _find_place() -> str:
    """Return file:line of the innermost caller, preferably in our code."""
    first = None
    frame = sys._getframe(1)
    while frame:
        path = Path(frame.f_code.co_filename)
        place = f'{path.parent.name}/{path.name}:{frame.f_lineno}'
        if OUR_FOLDER in path.parents:
            return f'{path.relative_to(OUR_FOLDER.parent)}:{frame.f_lineno}'
        if not first and not str(path).startswith(tuple(LIBRARIES)):
            first = place
        frame = frame.f_back
    return first or 'unknown'
