"""Processes that a test has started."""
from pathlib import Path


def is_alive(pid):
    """Return True if a process runs; a zombie does not count."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(')')[2].split()[0] != 'Z'
