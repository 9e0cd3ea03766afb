"""Processes of a launcher: their variables, and their end."""
import ctypes
import os
import signal
from typing import Optional

_PR_SET_PDEATHSIG = 1  # prctl(2) of Linux
# Local rank of the launcher, if LOCAL_RANK is the index of a GPU instead.
_TRUE_LOCAL_RANK = 'UNIVIP_LOCAL_RANK'


def is_first_rank() -> bool:
    """Return True for rank 0, also before the group is started."""
    env = os.environ
    return env.get('RANK', env.get('SLURM_PROCID', '0')) == '0'


def is_first_of_node() -> bool:
    """Return True for the rank that reports for all ranks of its node."""
    env = os.environ
    return env.get(_TRUE_LOCAL_RANK, env.get('LOCAL_RANK', '0')) == '0'


def use_only_gpu() -> None:
    """Make MMEngine use GPU 0 if this process sees no other.

    MMEngine uses the GPU whose index is the local rank. If the launcher shows
    each process a GPU of its own, as ``srun --gpus-per-task=1`` does, there
    is no such index. :func:`is_first_of_node` keeps the rank.
    """
    import torch  # here, because most of this module works without it
    env = os.environ
    names = [name for name in ('LOCAL_RANK', 'SLURM_LOCALID')
             if env.get(name, '0') != '0']
    if names and torch.cuda.device_count() == 1:
        env.setdefault(_TRUE_LOCAL_RANK, env[names[0]])
        env.update(dict.fromkeys(names, '0'))


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
