"""Parallel work on many images, in forked processes."""
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Optional

import cv2

from .distributed import is_started, local_world_size
from .processes import die_with_parent


def number_of_workers(workers: Optional[int] = None) -> int:
    """Return ``workers``, or the number of usable cores if it is None.

    Raises:
        ValueError: ``workers`` is below 1.
    """
    if workers is None:
        return len(os.sched_getaffinity(0))
    if workers < 1:
        raise ValueError(f'workers is {workers}, but must be at least 1')
    return workers


def share_of_cores(processes: int = 1) -> int:
    """Return the number of cores for each process on this machine, >= 1.

    The ranks of a launcher share the cores of their machine. Under srun, a
    rank with fewer cores than the machine has got cores of its own; the ranks
    of one torchrun always have the same cores.

    Args:
        processes (int): Processes that will share the cores of this process.
            In a process group, its ranks on this machine count instead.
            Defaults to 1.
    """
    cores = number_of_workers()
    if is_started():
        processes = local_world_size()
        if 'TORCHELASTIC_RUN_ID' not in os.environ and cores < (
                os.cpu_count() or 1):
            return cores
    return max(1, cores // processes)


def map_unordered(work: Callable[[Any], Any], tasks: Iterable,
                  workers: Optional[int] = None) -> Iterator[tuple[int, Any]]:
    """Apply a function to all tasks and yield each result when it is ready.

    Differences from :class:`ProcessPoolExecutor`: tasks are read lazily,
    because millions of them would fill the memory; the workers die with this
    process, even if it is killed; and OpenCV uses one thread, here and in the
    workers. More threads would compete for the cores, and a forked child can
    deadlock waiting for threads that it did not inherit.

    Args:
        work (Callable): Function of one task. It must be picklable.
        tasks (Iterable): Tasks, read a few ahead of the results.
        workers (int, optional): Number of processes; 1 works in this process.
            Defaults to one process per usable core.

    Yields:
        tuple[int, Any]: Index of the task, from 0, and its result.

    Raises:
        RuntimeError: A worker process was killed.
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
        workers, multiprocessing.get_context('fork'), _start_worker,
        (os.getpid(), ))
    running = {}
    try:
        while True:
            free = 4 * workers - len(running)
            for index, task in itertools.islice(tasks, free):
                running[pool.submit(work, task)] = index
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            'a worker process was killed, probably because the memory ran '
            'out: use fewer workers') from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Let this process end with its parent; ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)
