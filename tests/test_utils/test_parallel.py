import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from univip_mm.utils.parallel import map_unordered, number_of_workers

ROOT = Path(__file__).parents[2]


def double(x):
    return 2 * x


def die_at_three(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def fail_at_three(x):
    if x == 3:
        raise ValueError('three')
    return x


@pytest.mark.parametrize('workers', [1, 2, 3])
@pytest.mark.parametrize('number', [0, 1, 50])
def test_each_task_is_done_once_and_told_by_its_number(workers, number):
    results = list(map_unordered(double, range(100, 100 + number), workers))
    assert sorted(results) == [(i, 200 + 2 * i) for i in range(number)]


def test_tasks_are_taken_a_few_ahead_alone():
    taken = []
    tasks = (taken.append(i) or i for i in range(1000))
    results = map_unordered(double, tasks, 2)
    next(results)
    assert len(taken) <= 16
    results.close()


@pytest.mark.parametrize('workers', [1, 2])
def test_fault_of_the_work_is_raised_here(workers):
    with pytest.raises(ValueError, match='three'):
        list(map_unordered(fail_at_three, range(9), workers))


def test_killed_process_is_told_and_not_waited_for():
    with pytest.raises(RuntimeError, match='want of memory'):
        list(map_unordered(die_at_three, range(9), 2))


def test_threads_of_opencv_are_as_before():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    list(map_unordered(double, range(3), 2))
    assert cv2.getNumThreads() == 3
    cv2.setNumThreads(before)


def test_processes_end_with_the_one_that_forked_them(tmp_path):
    code = f"""
import os, pathlib, time
from univip_mm.utils.parallel import map_unordered

def work(x):
    pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(60)

list(map_unordered(work, range(8), 2))
"""
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    children = [int(path.name) for path in tmp_path.iterdir()]
    process.kill()
    process.wait()
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid):
    try:
        status = Path(f'/proc/{pid}/status').read_text()
    except FileNotFoundError:
        return False
    return 'State:\tZ' not in status


def test_number_of_workers_is_that_of_the_cores_unless_told():
    assert number_of_workers() == len(os.sched_getaffinity(0))
    assert number_of_workers(7) == 7
    with pytest.raises(ValueError, match='workers is 0'):
        number_of_workers(0)
