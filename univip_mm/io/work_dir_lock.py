"""Lock of a work dir, so that two trainings never write into one folder."""
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ..utils.text import printable
from .atomic import PathLike, open_to_append
from .files import open_regular, parse_json

FILE = '.lock'


@contextmanager
def work_dir_lock(work_dir: PathLike,
                  option: str = '--work-dir') -> Iterator[None]:
    """Lock a work dir during the block; the folder is created.

    The kernel releases the lock when this process and its forked workers have
    ended, even if they are killed. On a file system without locks, the work
    dir counts as in use only if the process that the lock file names is
    running on this machine. ``option`` sets the work dir, for messages.

    Raises:
        ValueError: Another process uses the work dir (the message names its
            host and process id), or the lock file cannot be written.
    """
    path = os.path.join(work_dir, FILE)
    try:
        os.makedirs(work_dir, exist_ok=True)
        file = open_to_append(path)
    except OSError as e:
        cure = ('it is a link, remove it' if e.errno == errno.ELOOP else
                'remove it' if e.errno == errno.EINVAL else
                'check that the work dir is writable')
        raise ValueError(f"cannot lock '{path}' ({e.strerror}): {cure}, or "
                         f'choose another {option}') from None
    with file:
        owner = _read_owner(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            in_use = False
        except BlockingIOError:
            in_use = True
        except OSError:  # the file system has no locks
            in_use = _is_running_here(owner)
        if in_use:
            raise ValueError(
                f"the work dir '{work_dir}' is in use by process "
                f"{owner.get('pid', '?')} on {owner.get('host', '?')} since "
                f"{owner.get('since', '?')}: wait for this training or stop "
                f'it, or choose another {option}')
        file.truncate(0)
        json.dump(dict(host=socket.gethostname(), pid=os.getpid(),
                       since=datetime.now().isoformat(' ', 'seconds')), file)
        file.flush()
        try:
            yield
        finally:
            # Without locks of the file system, an old entry must not count.
            file.truncate(0)


def is_in_use(work_dir: PathLike) -> bool:
    """Return True if a process holds the lock of a work dir.

    In contrast to :func:`work_dir_lock`, nothing is written. A folder whose
    lock file is missing or cannot be read is not in use.
    """
    try:
        file = open_regular(os.path.join(work_dir, FILE), follow=False)
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:  # the file system has no locks
            return _is_running_here(_read_owner(file))


def _read_owner(file) -> dict[str, str]:
    """Return the entry of a lock file, empty if there is none."""
    file.seek(0)
    try:
        owner = parse_json(file.read(1000))
        return {name: printable(owner[name])
                for name in ('host', 'pid', 'since')}
    except (ValueError, KeyError, TypeError):
        return {}


def _is_running_here(owner: dict[str, str]) -> bool:
    if owner.get('host') != socket.gethostname():
        return False
    if owner['pid'] == str(os.getpid()):
        return False
    return os.path.exists(f'/proc/{owner["pid"]}')
