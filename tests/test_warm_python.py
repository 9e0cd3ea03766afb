"""Tests of the stand-in for Python: it behaves as Python itself."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import is_alive
from warm_python import warm_python

SCRIPT = '''
import json, os, sys
print(json.dumps(dict(
    words=sys.argv, folder=os.getcwd(), mine=os.environ.get('MINE'),
    name=__name__, file=__file__, input=sys.stdin.read(), path=sys.path[:2],
    helper=__import__('helper').__file__, options=sys.warnoptions)))
print('text', file=sys.stderr)
sys.exit(int(sys.argv[1]))
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'here').mkdir()
    (tmp_path / 'script.py').write_text(SCRIPT)
    (tmp_path / 'helper.py').write_text('')
    return tmp_path


@pytest.mark.parametrize('words', [
    ['../script.py', '3', 'a b'], ['-u', '../script.py', '0'],
    ['-m', 'script', '5']])
def test_warm_python_runs_as_python(folder, words):
    cold, warm = (subprocess.run(
        [program, *words], cwd=folder / 'here', input='given',
        capture_output=True, text=True, timeout=60,
        env=dict(MINE='x', PYTHONPATH=str(folder)))
        for program in (sys.executable, warm_python()))
    assert json.loads(warm.stdout) == json.loads(cold.stdout)
    assert warm.stderr == cold.stderr and warm.returncode == cold.returncode


def test_warm_python_passes_errors_and_options(folder):
    (folder / 'fail.py').write_text('raise SystemExit("error: no")')
    done = subprocess.run([warm_python(), folder / 'fail.py'],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, 'error: no\n')
    done = subprocess.run([warm_python(), '-c', 'print(6 * 7)'],
                          capture_output=True, text=True)
    assert done.stdout == '42\n'


def test_warm_python_has_imports_and_new_seeds(folder):
    (folder / 'seeds.py').write_text(
        'import sys\nready = "univip_mm.engine" in sys.modules\n'
        'import random, numpy\nprint(ready, numpy.random.rand(), '
        'random.random())')
    seeds = [subprocess.run([warm_python(), folder / 'seeds.py'],
                            capture_output=True, text=True).stdout.split()
             for _ in range(2)]
    assert seeds[0][0] == seeds[1][0] == 'True'
    assert seeds[0][1] != seeds[1][1] and seeds[0][2] != seeds[1][2]


WAIT = '''
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print('saved', flush=True) or 1 / 0)
print(os.getpid(), flush=True)
time.sleep(60)
'''


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_warm_python_passes_signals(folder, number):
    (folder / 'wait.py').write_text(WAIT)
    process = subprocess.Popen([warm_python(), folder / 'wait.py'], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pid = int(process.stdout.readline())
    process.send_signal(number)
    assert ('saved' in process.stdout.read()) == (number == signal.SIGTERM)
    assert process.wait(30) == (1 if number == signal.SIGTERM else -9)
    deadline = time.time() + 30
    while is_alive(pid) and time.time() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)
    process.stderr.close()


def test_warm_python_ends_as_its_command(folder):
    (folder / 'end.py').write_text('import os; os.kill(os.getpid(), 15)')
    assert subprocess.run([warm_python(), folder / 'end.py']).returncode == (
        -signal.SIGTERM)
    assert os.path.basename(warm_python()) == 'python'
