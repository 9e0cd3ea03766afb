import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from processes import is_alive

from univip_mm.utils import distributed, parallel
from univip_mm.utils.parallel import (
    map_unordered,
    number_of_workers,
    share_of_cores,
)
from univip_mm.workflow.recipe import choose_workers

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


@pytest.mark.parametrize('cores, environ, processes, share', [
    (64, None, 1, 64),
    (64, None, 4, 16),
    (3, None, 8, 1),
    (16, None, 4, 4),  # a container with a part of the machine
    # srun gives each rank its own cores, or all ranks the whole machine.
    (8, dict(LOCAL_WORLD_SIZE='8'), 16, 8),
    (64, dict(LOCAL_WORLD_SIZE='8'), 16, 8),
    # torchrun on two nodes, each with 8 ranks; then in a part of the machine.
    (64, dict(LOCAL_WORLD_SIZE='8', TORCHELASTIC_RUN_ID='1'), 16, 8),
    (32, dict(LOCAL_WORLD_SIZE='8', TORCHELASTIC_RUN_ID='1'), 16, 4)])
def test_share_of_cores_follows_the_launcher(monkeypatch, cores, environ,
                                             processes, share):
    """The machine has 64 cores."""
    monkeypatch.setattr(os, 'cpu_count', lambda: 64)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(cores)))
    monkeypatch.setattr(os, 'environ', environ or {})
    for module in (parallel, distributed):
        monkeypatch.setattr(module, 'is_started', lambda: environ is not None)
    assert share_of_cores(processes) == share
    assert choose_workers(processes).value == min(8, share)
