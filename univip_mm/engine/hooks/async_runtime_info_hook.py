"""Hook that keeps log values on the device until they are logged."""
from collections import defaultdict
from typing import Any, Optional

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook

from ...registry import HOOKS
from ..before_save import call_before_save

# Iterations after which values are read although nothing logs them.
MAX_PENDING = 1000


@HOOKS.register_module()
class AsyncRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook`` without a wait in each iteration.

    MMEngine's hook reads each value of the model's output from the device in
    each iteration. This hook keeps copies on the device, and writes all
    copies to the message hub with one read: before ``LoggerHook`` logs, at
    the end of an epoch, before a checkpoint is saved, and at the latest after
    1000 iterations. Log and checkpoints are the same as with MMEngine's hook.

    Between two writes, another hook that reads the message hub does not see
    the newest values. Such a hook can read ``outputs`` in its
    ``after_train_iter``.
    """

    def __init__(self) -> None:
        # Names and values of each iteration and device.
        self._pending: list[tuple[list[str], torch.Tensor]] = []

    def before_train(self, runner) -> None:
        """Write the values before each checkpoint."""
        super().before_train(runner)
        call_before_save(runner, lambda: self._write(runner.message_hub))

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Keep the values, and write them if they are logged now."""
        hub, outputs = runner.message_hub, outputs or {}
        if any(f'train/{name}' not in hub.log_scalars for name in outputs):
            # The first value of a name keeps its place in the log.
            self._write(hub)
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
            return
        devices: dict[torch.device, dict] = defaultdict(dict)
        others = {}
        for name, value in outputs.items():
            if (isinstance(value, torch.Tensor) and value.numel() == 1
                    and value.is_floating_point()):
                devices[value.device][f'train/{name}'] = value
            else:
                others[name] = value
        super().after_train_iter(runner, batch_idx, data_batch, others)
        for values in devices.values():
            # A copy: a CUDA graph overwrites its outputs.
            self._pending.append((list(values), torch.cat([
                x.detach().reshape(1) for x in values.values()])))
        if len(self._pending) >= MAX_PENDING or _is_logged(runner, batch_idx):
            self._write(hub)

    def after_train_epoch(self, runner) -> None:
        """Write the values of the epoch."""
        self._write(runner.message_hub)

    def _write(self, hub) -> None:
        pending, self._pending = self._pending, []
        devices = defaultdict(list)
        for names, values in pending:
            devices[values.device].append((names, values))
        for rows in devices.values():
            numbers = iter(torch.cat([x for _, x in rows]).cpu().tolist())
            for names, _ in rows:
                for name in names:
                    hub.update_scalar(name, next(numbers))


def _is_logged(runner, batch_idx: int) -> bool:
    """Return True if a ``LoggerHook`` may log in this iteration."""
    return any(
        hook.every_n_inner_iters(batch_idx, hook.interval)
        or hook.end_of_epoch(runner.train_dataloader, batch_idx)
        for hook in runner.hooks if isinstance(hook, LoggerHook))
