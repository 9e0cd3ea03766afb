"""Process groups on CPUs.

MMEngine's ``init_dist`` requires a GPU even for gloo. PyTorch is imported
only if a process group is used, because the proposal search works without it.
"""
import gc
import os
import socket
import subprocess
from datetime import timedelta
from typing import Any

from .heartbeat import ADVICE, LIMIT, start_heartbeat, stop_heartbeat
from .rendezvous import (
    JoinError,
    check_addresses,
    first_line,
    is_started,
    open_store,
)

TIMEOUT = timedelta(minutes=10)  # PyTorch's default for NCCL
JOIN_TIMEOUT = timedelta(minutes=5)
LAUNCHERS = ('none', 'pytorch', 'slurm')


def start_gloo(launcher: str, timeout: timedelta = TIMEOUT,
               limit: float = LIMIT, advice: str = ADVICE) -> None:
    """Join the processes of a launcher in a gloo process group.

    Do nothing for the launcher 'none' or if the group already exists. The
    heartbeat starts before the ranks connect, so that no rank waits for one
    that failed.

    Args:
        launcher (str): One of ``LAUNCHERS``.
        timeout (timedelta): Maximum time to wait for another rank; at the
            start at most ``JOIN_TIMEOUT``. Defaults to ten minutes.
        limit (float): See :func:`start_heartbeat`.
        advice (str): See :func:`start_heartbeat`.

    Raises:
        ValueError: The launcher is unknown, or it did not start this process.
        JoinError: The ranks cannot connect.
    """
    check_launcher(launcher)
    if launcher == 'none' or is_started():
        return
    from torch.distributed import init_process_group
    rank, size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    join_timeout = min(timeout, JOIN_TIMEOUT)
    store = open_store(join_timeout)
    if size > 1:
        start_heartbeat(limit, advice, store)
        check_addresses(store, join_timeout)
    try:
        init_process_group('gloo', store=store, rank=rank, world_size=size,
                           timeout=timeout)
    except RuntimeError as e:
        raise JoinError(
            f'gloo cannot connect rank {rank} (host {socket.gethostname()}) '
            f'with the other ranks ({first_line(e)}): set GLOO_SOCKET_IFNAME '
            'to a network interface that connects all hosts') from None


def _set_environment_from_slurm() -> None:
    env = os.environ
    if 'SLURM_PROCID' not in env:
        raise ValueError(
            "launcher is 'slurm', but srun did not start this process: start "
            'it with srun, or leave --launcher out')
    # Tasks per node, such as "2(x3),1".
    tasks = env.get('SLURM_STEP_TASKS_PER_NODE', '1')
    env.update(
        RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'],
        LOCAL_RANK=env.get('SLURM_LOCALID', '0'),
        LOCAL_WORLD_SIZE=tasks.split(',')[0].split('(')[0])
    env.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in env:
        nodes = env.get('SLURM_STEP_NODELIST') or env['SLURM_NODELIST']
        hosts = subprocess.run(['scontrol', 'show', 'hostname', nodes],
                               check=True, capture_output=True, text=True)
        env['MASTER_ADDR'] = hosts.stdout.split()[0]


def check_launcher(launcher: str) -> None:
    """Check that the launcher started this process; read Slurm's variables.

    Raises:
        ValueError: The launcher is unknown, or it did not start this process.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"there is no launcher '{launcher}': choose one of "
                         f'{", ".join(LAUNCHERS)}')
    if launcher == 'slurm':
        _set_environment_from_slurm()
    elif launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError(
            "launcher is 'pytorch', but torchrun did not start this process: "
            'start it with torchrun, or leave --launcher out')


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank and the number of processes; (0, 1) without a group."""
    if not is_started():
        return 0, 1
    import torch.distributed as dist
    return dist.get_rank(), dist.get_world_size()


def local_world_size() -> int:
    """Return the number of processes of the group on this machine."""
    return int(os.environ.get('LOCAL_WORLD_SIZE', 1)) if is_started() else 1


def barrier() -> None:
    """Wait for all processes of the group."""
    if is_started():
        import torch.distributed as dist
        dist.barrier()


def broadcast(value: Any) -> Any:
    """Return the value of the first process of the group."""
    if not is_started():
        return value
    import torch.distributed as dist
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def leave() -> None:
    """Destroy the process group at the end of a successful program.

    The threads of gloo may still free sent data. If Python ends before them,
    it aborts and the launcher reports a failed training. Do not call this
    after an error: the threads may wait for a process that has ended.
    """
    stop_heartbeat()
    if is_started():
        import torch.distributed as dist
        gc.collect()  # a DDP model keeps the group alive
        dist.destroy_process_group()
