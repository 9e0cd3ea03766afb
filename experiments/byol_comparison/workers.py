"""Worker processes, one for each task, with a log file each."""
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Callable

from univip_mm.utils.processes import die_with_parent


def run_in_processes(work: Callable, tasks: Sequence[tuple],
                     logs: Sequence[Path],
                     jobs: int) -> Iterator[tuple[int, bool]]:
    """Call ``work`` for each task in a new process of its own.

    A new process has no state of an earlier run, and if the system kills a
    process, the others are not affected. ``concurrent.futures`` would give up
    all tasks in that case.

    Args:
        work (Callable): Function to call; pickled by name.
        tasks (Sequence[tuple]): Arguments of each call.
        logs (Sequence[Path]): Files that get the output of each call.
        jobs (int): Number of processes at a time.

    Yields:
        tuple[int, bool]: Index of a finished task, and if it succeeded.
    """
    # spawn: a forked child could wait forever for threads of its parent.
    context = multiprocessing.get_context('spawn')
    waiting = deque(range(len(tasks)))
    running = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                index = waiting.popleft()
                process = context.Process(
                    target=_work, args=(logs[index], work, *tasks[index]))
                process.start()
                running[process.sentinel] = index, process
            for sentinel in wait(running):
                index, process = running.pop(sentinel)
                process.join()
                yield index, process.exitcode == 0
    finally:
        for _, process in running.values():
            process.terminate()


def _work(log: Path, work: Callable, *args) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'a') as file:
        # The descriptors, so that child processes write to the log too.
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Otherwise a repeated command would train in the same folder twice.
    die_with_parent(multiprocessing.parent_process().pid)
    work(*args)
