"""Process groups on CPUs, which MMEngine does not provide for: its
``init_dist`` asks for a GPU even where gloo is the back end.

PyTorch is imported where there is a group alone.
"""
import gc
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any, Optional

LAUNCHERS = ('none', 'pytorch', 'slurm')


def start_gloo(launcher: str, timeout: Optional[timedelta] = None) -> None:
    """Join the launcher's processes in a group of back end gloo, unless they
    are in one.

    Args:
        launcher (str): 'pytorch' (torchrun), whose environment variables are
            taken as they are; 'slurm' (srun), from whose they are made; or
            'none', where nothing is done.
        timeout (timedelta, optional): How long a process waits for another.
            Defaults to None, PyTorch's.

    Raises:
        ValueError: There is no such launcher, or it did not start this
            process.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"there is no launcher '{launcher}': choose one of "
                         f'{", ".join(LAUNCHERS)}')
    if launcher == 'none' or is_started():
        return
    if launcher == 'slurm':
        _environment_of_slurm()
    if 'RANK' not in os.environ:
        raise ValueError("launcher is 'pytorch', but torchrun did not start "
                         'this process: start it with torchrun, or leave '
                         '--launcher out')
    import torch.distributed
    # PyTorch before 2.2 takes no None.
    options = {} if timeout is None else dict(timeout=timeout)
    torch.distributed.init_process_group('gloo', **options)


def _environment_of_slurm() -> None:
    """Set torchrun's environment variables from Slurm's."""
    if 'SLURM_PROCID' not in os.environ:
        raise ValueError("launcher is 'slurm', but srun did not start this "
                         'process: start it with srun, or leave --launcher '
                         'out')
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')
    # As "2(x3),1": tasks on each node.
    on_node = os.environ.get('SLURM_STEP_TASKS_PER_NODE', '1')
    os.environ['LOCAL_WORLD_SIZE'] = on_node.split(',')[0].split('(')[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        nodes = (os.environ.get('SLURM_STEP_NODELIST')
                 or os.environ['SLURM_NODELIST'])
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostname', nodes], check=True,
            capture_output=True, text=True).stdout
        os.environ['MASTER_ADDR'] = hosts.split()[0]


def is_started() -> bool:
    """Whether this process is in a group."""
    module = sys.modules.get('torch.distributed')
    return (module is not None and module.is_available()
            and module.is_initialized())


def rank_and_world_size() -> tuple[int, int]:
    """The number of this process in its group, and how many there are; 0 and
    1 where there is no group."""
    if not is_started():
        return 0, 1
    import torch.distributed as dist
    return dist.get_rank(), dist.get_world_size()


def local_world_size() -> int:
    """How many processes of the group run on this machine."""
    return int(os.environ.get('LOCAL_WORLD_SIZE', 1)) if is_started() else 1


def barrier() -> None:
    """Wait until every process of the group is here."""
    if is_started():
        import torch.distributed as dist
        dist.barrier()


def broadcast(value: Any) -> Any:
    """What the first process of the group gives as value."""
    if not is_started():
        return value
    import torch.distributed as dist
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def leave() -> None:
    """Leave the group, at the end of a process that went well, and once
    nothing that trained in the group is in use.

    Gloo's threads free what they last sent after the program has gone on. If
    Python ends meanwhile they abort it, and a launcher takes the whole
    training for failed. Here they are waited for; not after an error, in
    which they may wait for a process that never comes.
    """
    if is_started():
        import torch.distributed as dist
        gc.collect()  # a network in the group keeps it alive
        dist.destroy_process_group()
