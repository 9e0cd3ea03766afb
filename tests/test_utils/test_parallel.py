import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from processes import is_alive

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
def test_map_unordered_yields_each_task_once(workers, number):
    results = list(map_unordered(double, range(100, 100 + number), workers))
    assert sorted(results) == [(i, 200 + 2 * i) for i in range(number)]


def test_map_unordered_reads_tasks_lazily():
    taken = []
    tasks = (taken.append(i) or i for i in range(1000))
    results = map_unordered(double, tasks, 2)
    next(results)
    assert len(taken) <= 16
    results.close()


@pytest.mark.parametrize('workers', [1, 2])
def test_map_unordered_raises_error_of_work(workers):
    with pytest.raises(ValueError, match='three'):
        list(map_unordered(fail_at_three, range(9), workers))


def test_map_unordered_reports_killed_worker():
    with pytest.raises(RuntimeError, match='memory ran out'):
        list(map_unordered(die_at_three, range(9), 2))


def test_map_unordered_restores_opencv_threads():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    list(map_unordered(double, range(3), 2))
    assert cv2.getNumThreads() == 3
    cv2.setNumThreads(before)


def test_workers_die_with_parent(tmp_path):
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


def test_number_of_workers_defaults_to_cores():
    assert number_of_workers() == len(os.sched_getaffinity(0))
    assert number_of_workers(7) == 7
    with pytest.raises(ValueError, match='workers is 0'):
        number_of_workers(0)
