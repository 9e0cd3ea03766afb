"""What PyTorch may unpickle from a checkpoint of ours, and nothing else."""
import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def checkpoint_types() -> list:
    """The types in an MMEngine checkpoint that ``torch.load`` does not admit
    by itself: the logged scalars of its message hub, and the NumPy arrays in
    them."""
    try:
        from numpy._core.multiarray import _reconstruct, scalar
    except ImportError:  # NumPy 1
        from numpy.core.multiarray import _reconstruct, scalar
    dtypes = [np.dtype(name) for name in ('float32', 'float64', 'int64')]
    return [
        HistoryBuffer, HistoryBuffer.min, HistoryBuffer.max,
        HistoryBuffer.mean, HistoryBuffer.current, np.ndarray, np.dtype,
        _reconstruct, scalar, *(type(dtype) for dtype in dtypes)
    ]


def allow_checkpoint_types() -> None:
    """Admit :func:`checkpoint_types` to ``torch.load(weights_only=True)``,
    the default since PyTorch 2.6, so that a run can be resumed with it on."""
    if hasattr(torch.serialization, 'add_safe_globals'):  # PyTorch >= 2.4
        torch.serialization.add_safe_globals(checkpoint_types())


def load_checkpoint(path: str) -> dict:
    """A checkpoint's content on the CPU; nothing in it is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, is cut short, or holds an object
            of a type that no checkpoint of ours needs.
    """
    allow_checkpoint_types()
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint '{path}'") from None
    except Exception as e:
        raise ValueError(f"'{path}' is not a checkpoint that can be loaded "
                         f'safely, or is cut short: {_first_line(e)}'
                         ) from None
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, but a "
                         'checkpoint is a dict')
    return content


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)
