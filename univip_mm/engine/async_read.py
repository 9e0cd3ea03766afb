"""Copies of values on the device that the host reads later."""
import torch
from torch import Tensor


class AsyncRead:
    """Copy of a tensor that the host can read later without a wait.

    The copy from a GPU goes to pinned memory, in the order of the stream. The
    host waits only if :meth:`values` is called before the GPU has finished.
    On a CPU, the values are copied at once.

    Args:
        values (Tensor): Values to read, of shape (N,).
    """

    def __init__(self, values: Tensor) -> None:
        values = values.detach()
        self._event = None
        if not values.is_cuda:
            self._host = values.clone()
            return
        self._host = torch.empty(
            values.shape, dtype=values.dtype, pin_memory=True)
        self._host.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    def values(self) -> list[float]:
        """Return the values as Python numbers."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy().tolist()
