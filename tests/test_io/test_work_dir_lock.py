import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest
from tiny import PYTHONPATH, error_of, write_config

from univip_mm.io.work_dir_lock import is_in_use, work_dir_lock

HOLDER = '''
import sys, time
from univip_mm.io.work_dir_lock import work_dir_lock
with work_dir_lock(sys.argv[1]):
    print('locked', flush=True)
    time.sleep(60)
'''


@pytest.fixture
def holder(tmp_path):
    """Start a process that locks ``tmp_path/work``."""
    env = dict(os.environ, PYTHONPATH=PYTHONPATH, UNIVIP_HOST='none')
    with subprocess.Popen([sys.executable, '-c', HOLDER, tmp_path / 'work'],
                          stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout.readline() == b'locked\n'
        yield process
        process.kill()


def test_is_in_use_follows_the_lock(holder, tmp_path):
    assert is_in_use(tmp_path / 'work')
    holder.kill()
    holder.wait()
    assert not is_in_use(tmp_path / 'work')
    assert not is_in_use(tmp_path / 'missing')
    assert not (tmp_path / 'missing').exists()


def test_work_dir_lock_names_the_owner(holder, tmp_path):
    with pytest.raises(ValueError, match=(
            f'in use by process {holder.pid} on {os.uname().nodename} since '
            '20.*choose another --work-dir')):
        with work_dir_lock(tmp_path / 'work'):
            raise AssertionError


def test_work_dir_lock_ends_with_a_killed_owner(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with work_dir_lock(tmp_path / 'work'):
        pass


def test_work_dir_lock_is_free_after_the_block(holder, tmp_path):
    for _ in range(2):
        with work_dir_lock(tmp_path / 'again'):
            pass


@pytest.mark.parametrize('pid, refused', [(os.getppid(), True),
                                          (2**22 + 1, False)])
def test_work_dir_lock_without_locks_of_the_disk(
        tmp_path, monkeypatch, pid, refused):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, 'no locks')
    monkeypatch.setattr(fcntl, 'flock', no_locks)
    owner = dict(host=os.uname().nodename, pid=pid, since='yesterday')
    (tmp_path / '.lock').write_text(json.dumps(owner))
    if not refused:
        with work_dir_lock(tmp_path):
            return
    with pytest.raises(ValueError, match=f'in use by process {pid}'):
        with work_dir_lock(tmp_path):
            pass


@pytest.mark.parametrize('text', ['', 'x', '[' * 2000, '[1]', '{"host": 1}'])
def test_work_dir_lock_survives_a_damaged_entry(tmp_path, text):
    (tmp_path / '.lock').write_text(text)
    with work_dir_lock(tmp_path):
        pass


def test_work_dir_lock_does_not_follow_a_link(tmp_path):
    (tmp_path / 'precious').write_text('keep')
    (tmp_path / '.lock').symlink_to(tmp_path / 'precious')
    with pytest.raises(ValueError, match='it is a link, remove it'):
        with work_dir_lock(tmp_path):
            pass
    assert (tmp_path / 'precious').read_text() == 'keep'


def test_work_dir_lock_survives_a_copy(tmp_path):
    with work_dir_lock(tmp_path):
        (tmp_path / '.lock').read_text()  # a backup of the folder
        with pytest.raises(ValueError, match=f'by process {os.getpid()} on'):
            with work_dir_lock(tmp_path):
                pass


def test_work_dir_lock_refuses_a_pipe(tmp_path):
    os.mkfifo(tmp_path / '.lock')
    with pytest.raises(ValueError, match='not a regular file'):
        with work_dir_lock(tmp_path):
            pass


def test_train_refuses_a_work_dir_in_use(holder, coco_folder, tmp_path):
    before = sorted((tmp_path / 'work').rglob('*'))
    message = error_of('train', write_config(coco_folder), '--work-dir',
                       tmp_path / 'work')
    assert 'is in use by process' in message
    assert sorted((tmp_path / 'work').rglob('*')) == before
