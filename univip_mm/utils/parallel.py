"""Work on many images at once, in processes that are forked."""
import ctypes
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Optional

import cv2

_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


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


def map_unordered(work: Callable[[Any], Any],
                  tasks: Iterable,
                  workers: Optional[int] = None) -> Iterator[tuple[int, Any]]:
    """Do ``work`` on all tasks; tell each result as soon as it is there.

    OpenCV runs on one thread meanwhile, here and in the processes: more would
    get into each other's way, and those that run when a process is forked are
    missing in it, where they would be waited for without end. The processes
    end with this one, however it ends.

    Args:
        work (Callable): What to do with a task; pickled.
        tasks (Iterable): The tasks; taken a few ahead of the results.
        workers (int, optional): Processes; 1 works in this one. Defaults to
            None, one for each core that this process may use.

    Yields:
        tuple[int, Any]: The number of a task, from 0, and its result.

    Raises:
        RuntimeError: A process was killed.
    """
    workers = number_of_workers(workers)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        if workers == 1:
            yield from enumerate(map(work, tasks))
            return
        yield from _map_in_processes(work, enumerate(tasks), workers)
    finally:
        cv2.setNumThreads(threads)


def _map_in_processes(work: Callable, tasks: Iterator,
                      workers: int) -> Iterator[tuple[int, Any]]:
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context('fork'),
        initializer=_end_with,
        initargs=(os.getpid(), ))
    running = {}
    try:
        while True:
            for number, task in itertools.islice(tasks,
                                                 4 * workers - len(running)):
                running[pool.submit(work, task)] = number
            if not running:
                return
            done = wait(running, return_when=FIRST_COMPLETED).done
            for future in done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            'a worker process was killed, most often for want of memory: '
            'take fewer workers') from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """Make this process end when its parent does, and leave Ctrl-C to the
    parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before
        os._exit(1)
