"""Processes of a launcher: their variables, and their end."""
import ctypes
import os
import signal
from typing import Optional

_PR_SET_PDEATHSIG = 1  # prctl(2) of Linux


def is_first_rank() -> bool:
    """Return True for rank 0, also before the group is started."""
    env = os.environ
    return env.get('RANK', env.get('SLURM_PROCID', '0')) == '0'


def is_first_of_node() -> bool:
    """Return True for the rank that reports for all ranks of its node."""
    return os.environ.get('LOCAL_RANK', '0') == '0'


def die_with_parent(parent: Optional[int] = None) -> None:
    """Let the kernel kill this process when its parent ends.

    The kernel also kills it when the thread that started it ends. Start it
    from a thread that lives as long. The setting is not inherited by forked
    processes.

    Args:
        parent (int, optional): Process id of the parent. If it ended before
            this call, this process exits.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def end_with_launcher() -> None:
    """Let the kernel kill this process when its torchrun ends.

    Otherwise the ranks of a killed torchrun train on, and write into the same
    folder as a resumed run. Slurm ends its tasks itself.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        die_with_parent()
