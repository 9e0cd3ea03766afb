"""The losses of a batch as one graph, compiled or replayed as CUDA graphs."""
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Optional

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

CUDA_GRAPH = 'cuda_graph'
INDUCTOR = 'inductor'


class GraphError(ValueError):
    """A batch or a model that cannot run as a graph."""


class StepGraph:
    """Graph of the losses of a model, built with the first batch.

    Args:
        model (nn.Module): Model with a method ``losses(views, momentum) ->
            losses, log values``, whose arguments and results are tensors.
        mode (str): 'cuda_graph' captures the method as two CUDA graphs,
            forward and backward: one call starts all kernels of a graph.
            'inductor' does the same with the backbones compiled by Inductor,
            which fuses batch norm and ReLU. Other names are backends of
            ``torch.compile``: they compile the whole method and capture
            nothing.

    Raises:
        ValueError: The mode is unknown, or the machine cannot run the mode.
    """

    def __init__(self, model: Any, mode: str) -> None:
        check_mode(mode)
        self.mode = mode
        self._model = model
        self._losses: Callable = model.losses
        if mode not in (CUDA_GRAPH, INDUCTOR):
            self._losses = torch.compile(
                self._losses, backend=mode, fullgraph=True, dynamic=False)
        self._captured: Optional[_Captured] = None
        self._built_for: Optional[list[tuple]] = None

    def __call__(self, views: list[Tensor], momentum: Tensor
                 ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses and the values for the log of a batch.

        Raises:
            GraphError: The shapes of the batch differ from those of the
                first batch, the losses cannot be compiled or captured, or the
                weights were moved, frozen or unfrozen after the capture.
        """
        found = [tuple(view.shape) for view in views]
        if self._built_for is None:
            self._try_to_build(views, momentum)
            self._built_for = found
        if self._built_for != found:
            raise GraphError(
                f'model.graph={self.mode!r} was built for views '
                f'{self._built_for}, but this batch has {found}: set '
                'train_dataloader.drop_last=True, or model.graph=None')
        if self._captured is None:
            return self._losses(views, momentum)
        return self._captured(views, momentum)

    def _try_to_build(self, views: list[Tensor], momentum: Tensor) -> None:
        start = time.perf_counter()
        if self.mode == INDUCTOR:
            _log("model.graph='inductor': compiling the backbones, which "
                 'takes some minutes')
        try:
            self._build(views, momentum)
            _log(f'model.graph={self.mode!r}: built in '
                 f'{time.perf_counter() - start:.0f} s')
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as e:  # compilers raise any type
            reason = ' '.join(str(e).split())[:200]
            raise GraphError(
                f'model.graph={self.mode!r}: the losses cannot be compiled or '
                f'captured ({type(e).__name__}: {reason}): set '
                'model.graph=None') from e

    def _build(self, views: list[Tensor], momentum: Tensor) -> None:
        """Compile and capture; parameters and buffers do not change."""
        still = torch.zeros_like(momentum)  # the target does not move
        # The trial passes must not use up random numbers of the first batch.
        devices = [views[0].device] if views[0].is_cuda else []
        # DDP would split the graph to start its all-reduce earlier.
        with _kept_buffers(self._model), warnings.catch_warnings(), \
                torch.random.fork_rng(devices), \
                torch._dynamo.config.patch(optimize_ddp=False):
            # Warm-up and capture run on two streams, by PyTorch's design.
            warnings.filterwarnings('ignore', 'The AccumulateGrad node')
            if self.mode not in (CUDA_GRAPH, INDUCTOR):
                self._losses(views, still)
                return
            # Four compilations: two sizes of views, online and target. The
            # losses as one function would take twice as long to compile.
            backbones = [self._model.backbone,
                         self._model.target_net.module[0]]
            with _autocast_without_cache(), _compiled(
                    backbones if self.mode == INDUCTOR else []):
                self._captured = _Captured(
                    self._model, self._losses, still, views)


def _log(text: str) -> None:
    print_log(text, logger='current')


def check_mode(mode: str) -> None:
    """Raise ValueError if this machine cannot run a mode of StepGraph."""
    if mode in (CUDA_GRAPH, INDUCTOR) and not torch.cuda.is_available():
        raise ValueError(f'model.graph={mode!r} needs a GPU and there is none:'
                         ' set model.graph=None')
    if not hasattr(torch, 'get_autocast_dtype'):
        raise ValueError(f'model.graph={mode!r} needs PyTorch 2.4 or later, '
                         f'found {torch.__version__}: set model.graph=None')
    backends = torch._dynamo.list_backends(exclude_tags=None)
    if mode != CUDA_GRAPH and mode not in backends:
        raise ValueError(
            f"model.graph is {mode!r}, but must be None, 'cuda_graph', "
            "'inductor' or another backend of torch.compile")


def use_plain_numbers(model: nn.Module) -> None:
    """Replace NumPy numbers in a model by Python's, in place.

    The drop rates of the host's transformers are NumPy numbers, on which the
    compiler cannot branch.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, (np.bool_, np.number)):
                vars(module)[name] = value.item()


class _Captured:
    """CUDA graphs of the losses and their backward pass.

    The constructor runs the losses a few times, then captures them. A call
    copies the views to the memory of the capture and replays the kernels.
    """

    def __init__(self, model: nn.Module, losses: Callable, momentum: Tensor,
                 views: list[Tensor]) -> None:
        self._names: tuple[list[str], list[str]] = [], []
        self._all = list(model.parameters())
        self._parameters = [x for x in self._all if x.requires_grad]
        self._built_with = self._weights()

        def of_tensors(momentum: Tensor, *tensors: Tensor) -> tuple:
            values, log_vars = losses(list(tensors[:len(views)]), momentum)
            self._names = list(values), list(log_vars)
            return (*values.values(), *log_vars.values())

        with _aliases(model, self._parameters) as aliases, _other_threads():
            self._replay: Callable = torch.cuda.make_graphed_callables(
                of_tensors,
                (momentum, *(x.clone() for x in views), *aliases),
                allow_unused_input=True)

    def __call__(self, views: list[Tensor], momentum: Tensor
                 ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses and the detached values for the log."""
        if self._weights() != self._built_with:
            raise GraphError(
                'model.graph: weights were moved, frozen or unfrozen after '
                'the first batch: set model.graph=None')
        _own_gradients(self._parameters)
        values = self._replay(momentum, *views, *self._parameters)
        losses, log_vars = self._names
        return (dict(zip(losses, values)),
                {name: x.detach()
                 for name, x in zip(log_vars, values[len(losses):])})

    def _weights(self) -> list[tuple[int, bool]]:
        """Return what the kernels depend on: the memory of each weight."""
        return [(x.data_ptr(), x.requires_grad) for x in self._all]


@contextmanager
def _aliases(model: nn.Module, parameters: list[nn.Parameter]
             ) -> Iterator[list[nn.Parameter]]:
    """Let a model use new parameters in the same memory, within the block.

    Autograd adds up the gradient of a parameter on the stream on which the
    parameter was first used, or wrapped by DDP. A capture runs on its own
    stream and must not use another stream.
    """
    new = [nn.Parameter(x.detach()) for x in parameters]
    by_id = {id(a): b for a, b in zip(parameters, new)}
    before = [(module, dict(module._parameters))
              for module in model.modules()]
    try:
        for module, own in before:
            module._parameters.update(
                {name: by_id.get(id(x), x) for name, x in own.items()})
        yield new
    finally:
        for module, own in before:
            module._parameters.update(own)


@contextmanager
def _other_threads() -> Iterator[None]:
    """Let other threads use the GPU while this one captures.

    By default, a thread that pins memory for the data loader invalidates the
    capture, and stops with an error of its own.
    """
    graph = torch.cuda.graph
    torch.cuda.graph = functools.partial(  # type: ignore
        graph, capture_error_mode='thread_local')
    try:
        yield
    finally:
        torch.cuda.graph = graph  # type: ignore


def _own_gradients(parameters: list[nn.Parameter]) -> None:
    """Copy accumulated gradients out of the memory of the CUDA graph.

    The next replay overwrites the gradients of the last replay.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = parameter.grad.clone()


@contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the buffers of a model at the end of the block.

    The trial passes change the running statistics.
    """
    buffers = list(model.buffers())
    before = [x.clone() for x in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before):
                buffer.copy_(value)


@contextmanager
def _compiled(modules: list[nn.Module]) -> Iterator[None]:
    """Compile the forward passes of modules, until the end of the block."""
    for module in modules:
        module.forward = torch.compile(
            module.forward, fullgraph=True, dynamic=False)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # the method of the class is used again


def _autocast_without_cache() -> torch.autocast:
    """Return the current autocast without its cache of converted weights.

    A cached weight would be converted only once, outside of the graph, so the
    replays would use old weights.
    """
    return torch.autocast(
        'cuda', torch.get_autocast_dtype('cuda'), cache_enabled=False,
        enabled=torch.is_autocast_enabled('cuda'))
