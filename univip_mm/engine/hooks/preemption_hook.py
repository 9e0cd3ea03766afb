"""Checkpoint and exit on SIGTERM."""
import atexit
import functools
import os
import signal
import time
from typing import Any, Callable, Optional

import torch
from mmengine.dist import (
    all_reduce,
    barrier,
    get_comm_device,
    get_world_size,
)
from mmengine.hooks import Hook

from ...registry import HOOKS
from ...utils.heartbeat import stop_heartbeat
from ...utils.processes import die_with_parent
from .safe_checkpoint_hook import save_checkpoint_atomically

NAME = 'preempted.pth'
WORKER_GRACE_SECONDS = 20
# One request to end can arrive several times, for example from Slurm, which
# signals all processes, and from torchrun, which passes its signal on.
REPEAT_SECONDS = 5


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Hook that writes a checkpoint and exits on SIGTERM.

    Slurm sends SIGTERM before it preempts a job. ``--resume`` continues with
    the next batch of the epoch (see :class:`IterSeedHook`). All ranks stop
    after the same iteration, even if only one of them got the signal. The
    exit status is 143, as for any process that SIGTERM ended. A second
    SIGTERM ends the process at once, if it arrives more than
    ``REPEAT_SECONDS`` after the first.

    Args:
        interval (int): Iterations between two checks for a signal on another
            rank, with NCCL. A check waits for the GPU. With gloo, every
            iteration has a check. Defaults to 10.
    """
    priority = 'LOWEST'  # after the other hooks of the iteration

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self._signal_time: Optional[float] = None
        self._before: Any = signal.SIG_DFL
        self._exiting = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def before_train(self, runner) -> None:
        """Install the signal handlers of this process and the loader."""
        self._before = signal.signal(signal.SIGTERM, self._on_signal)
        loader = runner.train_dataloader
        if getattr(loader, 'num_workers', 0) > 0:
            loader.worker_init_fn = functools.partial(
                _start_worker, loader.worker_init_fn, self._exiting,
                _parent_of_workers(loader))
            # At exit, multiprocessing sends SIGTERM to the workers and waits
            # for them. Our handler runs before and lets them exit.
            atexit.register(self._exiting.fill_, 1)

    def after_train(self, runner) -> None:
        """Restore the previous signal handler."""
        signal.signal(signal.SIGTERM, self._before)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Save a checkpoint and exit, if a rank got the signal."""
        if not self._must_exit(runner):
            return
        done = runner.iter + 1
        path = save_checkpoint_atomically(
            runner, runner.work_dir, NAME, by_epoch=False, meta={})
        runner.logger.warning(f"got SIGTERM: saved '{path}' after iteration "
                              f'{done}; continue with --resume')
        self._exiting[0] = 1
        # srun and torchrun end all ranks after the first one has exited.
        # Rank 0 may still write the checkpoint.
        barrier()
        stop_heartbeat()
        raise SystemExit(128 + signal.SIGTERM)

    def _on_signal(self, *_) -> None:
        now = time.monotonic()
        if self._signal_time is None:
            self._signal_time = now
        elif now - self._signal_time > REPEAT_SECONDS:
            signal.signal(signal.SIGTERM, self._before)
            signal.raise_signal(signal.SIGTERM)

    def _must_exit(self, runner) -> bool:
        got_signal = self._signal_time is not None
        if get_world_size() == 1:
            return got_signal
        device = get_comm_device()
        if device.type != 'cpu' and not self.every_n_train_iters(
                runner, self.interval):
            return False
        flag = torch.tensor(float(got_signal), device=device)
        all_reduce(flag, op='max')
        return bool(flag)


def _parent_of_workers(loader: Any) -> Optional[int]:
    """Return this process, or None if a fork server starts the workers."""
    context = getattr(loader, 'multiprocessing_context', None)
    method = (context or torch.multiprocessing).get_start_method()
    return None if method == 'forkserver' else os.getpid()


def _start_worker(worker_init_fn: Optional[Callable], exiting: torch.Tensor,
                  parent: Optional[int], worker_id: int) -> None:
    # PyTorch's workers notice the end of their rank only between two batches.
    if parent is not None:
        die_with_parent(parent)

    def wait(*_) -> None:
        # Slurm signals all processes, but the last iterations still need
        # batches. A worker must not ignore the signal forever, because a
        # failing process ends its workers with it.
        if exiting[0]:
            os._exit(0)
        signal.alarm(WORKER_GRACE_SECONDS)

    signal.signal(signal.SIGTERM, wait)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    if worker_init_fn is not None:
        worker_init_fn(worker_id)
