import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import is_alive
from tiny import ROOT

from univip_mm.utils import heartbeat

LIMIT = 2.0
SUPPRESS = contextlib.suppress(OSError)

# The store of the group is a folder, so that a rank starts without PyTorch.
RANK = f'''
import os, sys, time
from pathlib import Path
from univip_mm.utils import heartbeat
from univip_mm.utils.heartbeat import start_heartbeat, stop_heartbeat

class Store:
    def set(self, key, value):
        Path('part').write_text(value)
        os.rename('part', key)

    def get(self, key):
        while not Path(key).exists():
            time.sleep(0.01)
        return Path(key).read_bytes()

heartbeat.ANSWER_SECONDS = float(os.environ['ANSWER'])
start_heartbeat({LIMIT}, 'try again', Store())
Path('started' + os.environ['RANK']).touch()
'''


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Ranks:
    """Processes that run the code of their rank after the heartbeat began."""

    def __init__(self, folder, *codes, missing=0, answer=10):
        self.folder = folder
        self.errors = [folder / f'errors{i}' for i in range(len(codes))]
        self.processes = []
        for rank, code in enumerate(codes):
            environment = dict(
                os.environ, UNIVIP_HOST='none', RANK=str(rank),
                LOCAL_RANK='0', WORLD_SIZE=str(len(codes) + missing),
                MASTER_ADDR='127.0.0.1', ANSWER=str(answer),
                PYTHONPATH=str(ROOT))
            with open(self.errors[rank], 'w') as errors:
                self.processes.append(subprocess.Popen(
                    [sys.executable, '-c', RANK + code], cwd=folder,
                    env=environment, stderr=errors))
        self.watchers = []

    def wait_until_started(self):
        for rank in range(len(self.processes)):
            wait_until((self.folder / f'started{rank}').exists)
        self.watchers = [
            int(pid) for x in self.processes for pid in
            Path(f'/proc/{x.pid}/task/{x.pid}/children').read_text().split()]

    def end(self):
        """Wait for all processes; return the exit codes of the ranks."""
        codes = [x.wait(30) for x in self.processes]
        wait_until(lambda: not any(map(is_alive, self.watchers)))
        return codes

    def messages(self):
        return [x.read_text() for x in self.errors]


@pytest.fixture
def start(tmp_path):
    """Return a function that starts ranks and a cleanup that kills them."""
    groups = []

    def start_ranks(*codes, **options):
        groups.append(Ranks(tmp_path, *codes, **options))
        groups[-1].wait_until_started()
        return groups[-1]

    yield start_ranks
    for group in groups:
        for process in group.processes:
            process.kill()
            process.wait()
        for pid in group.watchers:
            with SUPPRESS:
                os.kill(pid, signal.SIGKILL)


SLEEP = 'time.sleep(60)'


@pytest.mark.parametrize('stopped', [0, 2])
def test_stopped_rank_ends_all_ranks(start, stopped):
    ranks = start(SLEEP, SLEEP, SLEEP)
    pid = ranks.processes[stopped].pid
    os.kill(pid, signal.SIGSTOP)
    assert ranks.end() == [-9] * 3
    expected = (
        f'error: rank {stopped} (host {socket.gethostname()}, pid {pid}) has '
        'not answered for 2 s: its process is stopped or hangs; all ranks '
        'end: try again\n')
    assert ranks.messages() == [expected] * 3


@pytest.mark.parametrize('killed', [0, 1])
def test_killed_rank_ends_all_ranks(start, killed):
    ranks = start(SLEEP, SLEEP, SLEEP)
    ranks.processes[killed].kill()
    assert ranks.end() == [-9] * 3
    assert all(f'rank {killed} (' in x and ') was killed; all ' in x
               for x in ranks.messages())


def test_failed_rank_ends_all_ranks(start):
    ranks = start(SLEEP, 'raise SystemExit("error: own message")')
    assert ranks.end() == [-9, 1]
    others, own = ranks.messages()
    assert own == 'error: own message\n'
    assert 'rank 1 (' in others and ') has ended; all ranks end' in others


def test_ranks_that_fail_together_print_only_their_own(start):
    code = 'time.sleep({}); raise SystemExit("error: own message")'
    ranks = start(code.format(0.2), code.format(0))
    assert ranks.end() == [1, 1]
    assert ranks.messages() == ['error: own message\n'] * 2


def test_handled_sigterm_does_not_save_stuck_rank(start):
    stuck = 'import signal; signal.signal(15, lambda *_: None); '
    ranks = start(stuck + 'time.sleep(60)', SLEEP)
    ranks.processes[1].kill()
    assert ranks.end() == [-9, -9]


def test_silent_connection_ends_all_ranks(start):
    ranks = start(SLEEP, SLEEP)
    os.kill(ranks.watchers[1], signal.SIGSTOP)  # as if its packets were lost
    assert ranks.processes[0].wait(30) == -9
    text = ranks.messages()[0]
    assert 'no connection to rank 1 (' in text and 'for 2 s; all' in text
    os.kill(ranks.watchers[1], signal.SIGCONT)
    assert ranks.end() == [-9, -9]


def test_finished_ranks_may_end_at_any_time(start):
    ranks = start(f'time.sleep(1); stop_heartbeat(); time.sleep({LIMIT})',
                  'stop_heartbeat(); os._exit(0)',
                  f'time.sleep(1.5 * {LIMIT}); stop_heartbeat()')
    assert ranks.end() == [0, 0, 0]
    assert ranks.messages() == [''] * 3


def test_finished_rank_does_not_end_the_others(start):
    ranks = start(f'time.sleep(1.5 * {LIMIT}); stop_heartbeat()',
                  'stop_heartbeat()')
    assert ranks.end() == [0, 0]
    assert ranks.messages() == [''] * 2


def test_suspended_job_goes_on(start):
    ranks = start('time.sleep(5); stop_heartbeat()', SLEEP)
    pids = [x.pid for x in ranks.processes] + ranks.watchers
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * LIMIT)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert ranks.processes[0].wait(30) == 0
    assert ranks.messages() == [''] * 2


def test_watcher_survives_signals_of_the_group(start):
    ranks = start(SLEEP, SLEEP)
    for pid in ranks.watchers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    ranks.processes[1].kill()
    assert ranks.end() == [-9, -9]


def test_strangers_cannot_end_the_ranks(start):
    ranks = start(SLEEP, SLEEP, missing=1)  # the port is still open
    port = int((ranks.folder / 'beat1').read_text().split()[0])
    for text in (b'', b'hello\n', b'hello x 1 y\nstop 0 1 no\n',
                 b'stop 0 1 no\n', b'x' * 99999, b'\xff\x00\n'):
        with SUPPRESS, socket.create_connection(('127.0.0.1', port)) as link:
            link.sendall(text)
    time.sleep(LIMIT / 2)
    assert all(x.poll() is None for x in ranks.processes)
    assert all(map(is_alive, ranks.watchers))


def test_rank_in_one_long_call_is_not_stopped(start):
    # A call that holds Python's lock, such as the parsing of a large JSON.
    ranks = start("import re\nre.match('(a+)+$', 'a' * 27 + 'b')\n"
                  'stop_heartbeat()',
                  f'time.sleep({3 * LIMIT})\nstop_heartbeat()')
    assert ranks.end() == [0, 0]


def test_unreachable_watcher_is_a_warning(start):
    # In the second heartbeat, nothing listens on the port of rank 0.
    ranks = start('stop_heartbeat()', "stop_heartbeat(); store = Store(); "
                  "store.set('beat2', '1 token'); "
                  "store.set('beat2-limit', '2'); "
                  "start_heartbeat(2, 'try again', store); stop_heartbeat()")
    assert ranks.end() == [0, 0]
    own, warning = ranks.messages()
    assert own == '' and warning.startswith(
        'warning: rank 1 runs without heartbeat: no answer from rank 0 at ')


def test_late_answer_of_rank_0_is_accepted(start):
    ranks = start(SLEEP, SLEEP, answer=0)
    wait_until(lambda: 'runs without heartbeat' in ranks.messages()[1])
    time.sleep(LIMIT / 4)  # for the answer
    assert all(map(is_alive, ranks.watchers))
    ranks.processes[0].kill()
    assert ranks.end() == [-9, -9]


def test_start_heartbeat_needs_a_group(monkeypatch):
    monkeypatch.setattr(heartbeat, '_Heartbeat', None)  # must not be called
    heartbeat.start_heartbeat()
    monkeypatch.setenv('WORLD_SIZE', '2')  # torchrun, but no process group
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    heartbeat.start_heartbeat()
    # Without the heartbeat of one rank, the other must not wait for it.
    values = {}
    store = SimpleNamespace(
        set=values.__setitem__, get=lambda key: values[key].encode())
    for rank, limit in ((0, 0), (1, 60)):
        monkeypatch.setenv('RANK', str(rank))
        monkeypatch.setattr(heartbeat, '_number_of_starts', 0)
        heartbeat.start_heartbeat(limit, store=store)
    heartbeat.stop_heartbeat()
