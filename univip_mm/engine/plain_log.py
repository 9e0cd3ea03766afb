"""Conversion of MMEngine's log to plain types and back."""
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from .safe_load import has_data, make_history

_NUMBERS = (torch.float32, torch.float64, torch.int32, torch.int64)
_BASES = (bool, int, float, str, bytes)


def to_plain_parts(checkpoint: dict) -> list[str]:
    """Replace the message hub and ``meta`` with copies of plain types.

    The reader of :func:`torch.load` with ``weights_only`` accepts the copies.
    Stock MMEngine can resume from them, without the history of the log.

    Returns:
        list[str]: Names of the values that have no plain form. They are left
        out.
    """
    dropped: list[str] = []
    for part in ('meta', 'message_hub'):
        if isinstance(checkpoint.get(part), dict):
            checkpoint[part] = _plain_dict(checkpoint[part], part, dropped)
    return dropped


def restore_log(checkpoint: dict) -> None:
    """Replace the plain histories in a message hub with HistoryBuffers.

    MMEngine skips entries that are not restored.
    """
    hub = checkpoint.get('message_hub')
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    if not isinstance(scalars, dict):
        return
    for name, plain in scalars.items():
        if not isinstance(plain, dict):
            continue
        arrays = [x.detach().cpu().numpy()
                  if has_data(x) and x.dtype in _NUMBERS else None
                  for x in map(plain.get, ('values', 'counts'))]
        buffer = make_history(*arrays, plain.get('max_length'))
        if buffer is not None:
            scalars[name] = buffer


def _plain_dict(node: dict, path: str, dropped: list[str]) -> dict:
    result = {}
    for key, value in node.items():
        try:
            result[_to_plain(key)] = (
                _plain_dict(value, f'{path}.{key}', dropped)
                if isinstance(value, dict) else _to_plain(value))
        except (TypeError, ValueError, RecursionError):
            dropped.append(f'{path}.{key}')
    return result


def _to_plain(value: Any) -> Any:
    """Return the plain form of a value.

    Raises:
        TypeError: The value has none.
    """
    if value is None or isinstance(value, _BASES):
        # Also subclasses, such as numpy.float64.
        return value if value is None else next(
            kind(value) for kind in _BASES if isinstance(value, kind))
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, HistoryBuffer):
        values, counts = map(torch.from_numpy, value.data)
        return dict(values=values, counts=counts, max_length=value.max_length)
    if isinstance(value, (np.ndarray, np.generic)):
        return _to_plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(
            map(_to_plain, value))
    if isinstance(value, dict):
        return {_to_plain(k): _to_plain(v) for k, v in value.items()}
    raise TypeError(type(value).__name__)
