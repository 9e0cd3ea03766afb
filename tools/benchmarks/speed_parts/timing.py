"""Interleaved timing of functions that are compared."""
import time
from collections.abc import Sequence
from typing import Callable

import numpy as np
import torch


def device() -> str:
    """Return 'cuda' if PyTorch has a GPU, else 'cpu'."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def time_interleaved(
        functions: dict[str, Sequence[Callable]], repeats: int,
        synchronize: Callable = lambda: None) -> dict[str, float]:
    """Run functions call by call in turns; return mean seconds per call.

    Interleaved calls keep the comparison fair on a machine whose speed
    changes.

    Args:
        functions (dict): Calls of each name; all names have the same number
            of calls.
        repeats (int): Repeats of all calls, after one warm-up. The shortest
            time of each call counts.
        synchronize (Callable): Waits for the device. Defaults to nothing.
    """
    times = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for calls in zip(*functions.values()):
            for name, call in zip(functions, calls):
                synchronize()
                start = time.perf_counter()
                call()
                synchronize()
                if repeat:
                    times[name].append(time.perf_counter() - start)
    return {name: float(np.reshape(x, (repeats, -1)).min(axis=0).mean())
            for name, x in times.items()}


def time_on_device(functions: dict, repeats: int) -> dict:
    """Measure one call per name on the training device, in turns."""
    calls = {name: [call] for name, call in functions.items()}
    if device() == 'cuda':
        return time_interleaved(calls, repeats, torch.cuda.synchronize)
    return time_interleaved(calls, repeats)
