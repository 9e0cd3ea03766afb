import atexit
import functools
import os
import signal
from typing import Any, Callable, Optional

import torch
from mmengine.dist import all_reduce, get_comm_device, get_world_size
from mmengine.hooks import Hook

from ...registry import HOOKS
from .safe_checkpoint_hook import save_whole

NAME = 'preempted.pth'
WORKERS_OUTLIVE_SIGNAL = 20  # seconds


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, as Slurm sends it before it takes the machine away, writes
    a checkpoint and leaves.

    ``--resume`` goes on from it, within the epoch, with the next batch (see
    :class:`IterSeedHook`). The processes of a group leave after the same
    iteration, also where only one of them got the signal. The exit status is
    143, as of a process that SIGTERM ended.

    Args:
        interval (int): Iterations between two looks of several processes at
            whether one of them got the signal. Defaults to 10.
    """
    priority = 'LOWEST'  # after the iteration's other hooks

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self._asked = False
        self._before: Any = signal.SIG_DFL
        self._leaves = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def before_train(self, runner) -> None:
        """Listen for the signal. The loader's workers live on for a while, so
        that the batches that the last iterations need still come."""
        self._before = signal.signal(signal.SIGTERM, self._note)
        loader = runner.train_dataloader
        if getattr(loader, 'num_workers', 0) > 0:
            loader.worker_init_fn = functools.partial(
                _outlive_signal, loader.worker_init_fn, self._leaves)
            # Whatever ends this process, before multiprocessing's own exit,
            # which sends the signal to the workers and waits for them.
            atexit.register(self._leaves.fill_, 1)

    def after_train(self, runner) -> None:
        """Listen no longer."""
        signal.signal(signal.SIGTERM, self._before)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Save and leave, if asked to."""
        if not self._is_asked(runner):
            return
        done = runner.iter + 1
        path = save_whole(
            runner, runner.work_dir, NAME, by_epoch=False,
            meta=dict(epoch=done // len(runner.train_dataloader), iter=done))
        runner.logger.warning(f"SIGTERM after iteration {done}: '{path}' is "
                              'written; go on with --resume')
        self._leaves[0] = 1
        raise SystemExit(128 + signal.SIGTERM)

    def _note(self, *_) -> None:
        if self._asked:  # a second time: at once
            signal.signal(signal.SIGTERM, self._before)
            signal.raise_signal(signal.SIGTERM)
        self._asked = True

    def _is_asked(self, runner) -> bool:
        if get_world_size() == 1:
            return self._asked
        if not self.every_n_train_iters(runner, self.interval):
            return False
        asked = torch.tensor(float(self._asked), device=get_comm_device())
        all_reduce(asked, op='max')
        return bool(asked)


def _outlive_signal(worker_init_fn: Optional[Callable], leaves: torch.Tensor,
                    worker_id: int) -> None:

    def wait(*_) -> None:
        # Slurm sends the signal to all processes. Not to be ignored for good:
        # it is also how a process that fails ends its workers.
        if leaves[0]:
            os._exit(0)
        signal.alarm(WORKERS_OUTLIVE_SIGNAL)

    signal.signal(signal.SIGTERM, wait)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    if worker_init_fn is not None:
        worker_init_fn(worker_id)
