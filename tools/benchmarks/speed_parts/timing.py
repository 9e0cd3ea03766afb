"""Interleaved timing of functions that are compared."""
import time
from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
import torch


def device() -> str:
    """Return 'cuda' if PyTorch has a GPU, else 'cpu'."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if device() == 'cuda':
        torch.cuda.synchronize()


def time_interleaved(
        functions: dict[str, Sequence[Callable]], repeats: int,
        synchronize: Callable = lambda: None,
        block: int = 1) -> dict[str, float]:
    """Run functions in turns; return mean seconds per call.

    Interleaved calls keep the comparison fair on a machine whose speed
    changes.

    Args:
        functions (dict): Calls of each name; all names have the same number
            of calls.
        repeats (int): Repeats of all calls, after one warm-up. The shortest
            time of each call counts.
        synchronize (Callable): Waits for the device. Defaults to nothing.
        block (int): Calls of a turn. With short calls, the first call of a
            turn is slower, because another function has filled the caches of
            the CPU. Defaults to 1.
    """
    times = {name: [] for name in functions}
    for repeat, name, seconds in take_turns(
            functions, repeats + 1, synchronize, block):
        if repeat:
            times[name].append(seconds)
    return {name: float(np.reshape(x, (repeats, -1)).min(axis=0).mean())
            for name, x in times.items()}


def take_turns(
        functions: dict[str, Sequence[Callable]], repeats: int,
        synchronize: Callable = lambda: None, block: int = 1
) -> Iterator[tuple[int, str, float]]:
    """Yield the repeat, the name and the seconds of each call, in turns.

    The arguments are those of :func:`time_interleaved`, without a warm-up.
    """
    for repeat in range(repeats):
        longest = max(map(len, functions.values()), default=0)
        for first in range(0, longest, block):
            for name, calls in functions.items():
                for call in calls[first:first + block]:
                    synchronize()
                    start = time.perf_counter()
                    call()
                    synchronize()
                    yield repeat, name, time.perf_counter() - start


def time_on_device(functions: dict, repeats: int) -> dict:
    """Measure one call per name on the training device, in turns."""
    calls = {name: [call] for name, call in functions.items()}
    return time_interleaved(calls, repeats, synchronize)
