"""Work on many images at once, in processes that are forked."""
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional

import cv2


def number_of_workers(workers: Optional[int] = None) -> int:
    """``workers``, or where that is None, the cores that this process may
    use.

    Raises:
        ValueError: ``workers`` is below 1.
    """
    if workers is None:
        return len(os.sched_getaffinity(0))
    if workers < 1:
        raise ValueError(f'workers is {workers}, but must be at least 1')
    return workers


def map_in_order(work: Callable[[Any], Any],
                 tasks: Iterable,
                 workers: Optional[int] = None,
                 chunksize: int = 1) -> Iterator:
    """The results of ``work`` for all tasks, in their order, as they come.

    OpenCV runs on one thread meanwhile, here and in the processes: more would
    get into each other's way, and those that run when a process is forked are
    missing in it, where they would be waited for without end.

    Args:
        work (Callable): What to do with a task; pickled.
        tasks (Iterable): The tasks.
        workers (int, optional): Processes; 1 works in this one. Defaults to
            None, one for each core that this process may use.
        chunksize (int): Tasks that a process takes at a time. Defaults to 1.

    Yields:
        Any: A result.
    """
    workers = number_of_workers(workers)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        if workers == 1:
            yield from map(work, tasks)
            return
        with multiprocessing.get_context('fork').Pool(workers) as pool:
            yield from pool.imap(work, tasks, chunksize)
    finally:
        cv2.setNumThreads(threads)
