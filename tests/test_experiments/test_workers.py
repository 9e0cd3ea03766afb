import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from experiments.byol_comparison.workers import run_in_processes

PARENT = '''
from pathlib import Path
from test_workers import sleep
from experiments.byol_comparison.workers import run_in_processes
if __name__ == '__main__':
    list(run_in_processes(sleep, [(PATH, )], [Path(PATH).with_suffix('.log')],
                          1))
'''


def act(name):
    """Work of a worker process."""
    print('starts', flush=True)
    if name == 'raise':
        raise ValueError('a wrong value')
    if name == 'killed':
        os.kill(os.getpid(), signal.SIGKILL)


def sleep(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def test_failed_tasks_do_not_stop_others(tmp_path):
    names = ['raise', 'killed', 'works', 'works']
    logs = [tmp_path / f'logs/{i}.log' for i in range(4)]
    outcomes = run_in_processes(act, [(x, ) for x in names], logs, jobs=2)
    assert dict(outcomes) == {0: False, 1: False, 2: True, 3: True}
    assert all('starts' in x.read_text() for x in logs)
    assert 'ValueError: a wrong value' in logs[0].read_text()


def test_workers_end_with_their_parent(tmp_path):
    path, script = tmp_path / 'pid', tmp_path / 'parent.py'
    script.write_text(PARENT.replace('PATH', repr(str(path)), 1).replace(
        'PATH', repr(str(path))))
    process = subprocess.Popen(
        [sys.executable, script],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
    try:
        wait_for(lambda: path.is_file() and path.read_text())
    finally:
        process.kill()
        process.wait()
    worker = int(path.read_text())
    wait_for(lambda: not is_running(worker))


def is_running(pid):
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != 'Z'


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end
        time.sleep(0.1)
