"""Devices of a training, found without using a GPU in this process."""
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Optional

import torch

from .recipe import Devices

HOW = ("use 'auto', a number of GPUs such as 2, their indices such as "
       "'0,3' or '3,', 'cpu', or 'cpu:N' for N processes")
# A CUDA context would take memory of the first GPU until this process ends.
_PROBE = ('import json, torch; print(json.dumps(['
          '[torch.cuda.get_device_name(i), '
          'torch.cuda.get_device_capability(i)[0]] '
          'for i in range(torch.cuda.device_count())]))')


def find_devices(wanted: str = 'auto') -> Devices:
    """Return the devices that ``--devices`` stands for.

    Raises:
        ValueError: The text is not understood, or there are fewer GPUs.
    """
    wanted = str(wanted).strip()
    if match := re.fullmatch(r'cpu(?::([1-9]\d*))?', wanted):
        count = int(match[1] or 1)
        return Devices('cpu', count, _cpu_text(count), visible='')
    gpus = _probe_gpus()
    if wanted == 'auto':
        if not gpus:
            return Devices('cpu', 1, _cpu_text(1), 'PyTorch finds no GPU',
                           visible='')
        return _gpus(gpus, range(len(gpus)), None, 'all GPUs')
    if not re.fullmatch(r'\d+(,\d+)*,?', wanted):
        raise ValueError(f"--devices is '{wanted}': {HOW}")
    numbers = [int(x) for x in wanted.split(',') if x]
    chosen = numbers if ',' in wanted else list(range(numbers[0]))
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"--devices is '{wanted}': {HOW}")
    if max(chosen) >= len(gpus):
        raise ValueError(
            f"--devices is '{wanted}', but PyTorch finds "
            f'{len(gpus) or "no"} GPU{"s" * (len(gpus) > 1)}: {HOW}')
    return _gpus(gpus, chosen, _visible(chosen))


def _gpus(gpus: list, chosen: Sequence[int], visible: Optional[str],
          reason: str = 'as given') -> Devices:
    names = sorted({gpus[i][0] for i in chosen})
    return Devices(
        'cuda', len(chosen), f'{len(chosen)} x {" and ".join(names)}',
        reason, visible, bfloat16=all(gpus[i][1] >= 8 for i in chosen))


def _visible(chosen: Sequence[int]) -> str:
    """Return CUDA_VISIBLE_DEVICES for indices into the visible GPUs."""
    present = os.environ.get('CUDA_VISIBLE_DEVICES')
    names = present.split(',') if present else None
    return ','.join(names[i] if names else str(i) for i in chosen)


def _cpu_text(count: int) -> str:
    return 'CPU' if count == 1 else f'{count} CPU processes'


def _probe_gpus() -> list[tuple[str, int]]:
    """Return the name and the major compute capability of each GPU."""
    if not torch.cuda.device_count():  # does not create a context
        return []
    done = subprocess.run([sys.executable, '-c', _PROBE], text=True,
                          capture_output=True)
    if done.returncode:
        reason = (done.stderr.strip() or 'no message').splitlines()[-1]
        raise ValueError(f'the GPUs cannot be used ({reason}): update the '
                         'driver, or use --devices cpu')
    return json.loads(done.stdout.splitlines()[-1])
