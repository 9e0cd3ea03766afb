"""Processes that a test has started."""
from pathlib import Path


def state(pid):
    """Return the state of a process, such as 'T'; '' after its end."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
        return ''
    return text.rpartition(')')[2].split()[0]


def is_alive(pid):
    """Return True if a process runs; a zombie does not count."""
    return state(pid) not in ('', 'Z')
