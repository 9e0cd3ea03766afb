"""The losses of a batch as one graph, compiled or replayed as CUDA graphs."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

import torch
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
        mode (str): 'cuda_graph' captures the method and its backward pass as
            CUDA graphs: all kernels start with one call. 'inductor' compiles
            the method with Inductor first, which fuses batch norm and ReLU.
            Other names are backends of ``torch.compile``, without a capture.

    Raises:
        ValueError: The mode is unknown, or the machine cannot run the mode.
    """

    def __init__(self, model: nn.Module, mode: str) -> None:
        check_mode(mode)
        self.mode = mode
        self._model = model
        self._losses = model.losses
        if mode != CUDA_GRAPH:
            self._losses = torch.compile(
                model.losses, backend=mode, fullgraph=True, dynamic=False)
        self._captured: Optional[_TensorFunction] = None
        self._built_for: Optional[list[tuple]] = None

    def __call__(self, views: list[Tensor], momentum: Tensor
                 ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses and the values for the log of a batch.

        Raises:
            GraphError: The batch has other shapes than the first one, or the
                losses cannot be compiled or captured.
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
        _own_gradients(self._model)
        return self._captured.call(momentum, views)

    def _try_to_build(self, views: list[Tensor], momentum: Tensor) -> None:
        try:
            self._build(views, momentum)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as e:  # compilers raise any type
            reason = ' '.join(str(e).split())[:200]
            raise GraphError(
                f'model.graph={self.mode!r}: the losses cannot be compiled or '
                f'captured ({type(e).__name__}: {reason}): set '
                'model.graph=None') from e

    def _build(self, views: list[Tensor], momentum: Tensor) -> None:
        """Compile and capture, without a change of the model's state."""
        # DDP would split the graph to start its all-reduce earlier.
        with _kept_buffers(self._model), _without_ddp_split():
            still = torch.zeros_like(momentum)  # the target stays
            if self.mode in (CUDA_GRAPH, INDUCTOR):
                with _autocast_without_cache():
                    self._captured = _capture(
                        self._model, self._losses, still, views)
            else:
                self._losses(views, still)


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


class _TensorFunction(nn.Module):
    """Losses with tensor arguments and results only, as a capture needs."""

    def __init__(self, model: nn.Module, losses) -> None:
        super().__init__()
        self.model = model  # its parameters get gradients
        self.losses = losses
        self.names: tuple[list[str], list[str]] = [], []

    def forward(self, momentum: Tensor, *views: Tensor) -> tuple[Tensor, ...]:
        losses, log_vars = self.losses(list(views), momentum)
        self.names = list(losses), list(log_vars)
        return (*losses.values(), *log_vars.values())

    def call(self, momentum: Tensor, views: list[Tensor]
             ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Replay the graph; return losses and detached log values."""
        values = self(momentum, *views)
        losses, log_vars = self.names
        return (dict(zip(losses, values)),
                {name: x.detach()
                 for name, x in zip(log_vars, values[len(losses):])})


def _capture(model: nn.Module, losses, momentum: Tensor,
             views: list[Tensor]) -> _TensorFunction:
    function = _TensorFunction(model, losses).train()
    # The copies become the memory from which each replay reads its batch.
    torch.cuda.make_graphed_callables(
        function, (momentum, *(x.clone() for x in views)),
        allow_unused_input=True)
    return function


def _own_gradients(model: nn.Module) -> None:
    """Copy gradients that exist before a replay (accumulated gradients).

    The gradients of the last replay are in memory that the next replay
    overwrites.
    """
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad.clone()


@contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the buffers of a model: the trial passes change statistics."""
    buffers = list(model.buffers())
    before = [x.clone() for x in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before):
                buffer.copy_(value)


@contextmanager
def _without_ddp_split() -> Iterator[None]:
    with torch._dynamo.config.patch(optimize_ddp=False):
        yield


def _autocast_without_cache() -> torch.autocast:
    """Return the present autocast without its cache of converted weights.

    A cached weight would be converted outside of the graph, once.
    """
    return torch.autocast(
        'cuda', torch.get_autocast_dtype('cuda'), cache_enabled=False,
        enabled=torch.is_autocast_enabled('cuda'))
