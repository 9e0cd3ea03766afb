"""Training without a GPU: gloo for several processes, and what needs a GPU."""
from datetime import timedelta

import torch
from mmengine.config import Config

from ..utils.distributed import TIMEOUT, start_gloo
from ..utils.heartbeat import LIMIT
from .config import parts_of_type


def check_mixed_precision(cfg: Config) -> None:
    """Raise ValueError if mixed precision is on and there is no GPU."""
    if (cfg.optim_wrapper.get('type') == 'AmpOptimWrapper'
            and not torch.cuda.is_available()):
        raise ValueError('mixed precision needs a GPU and there is none: '
                         'leave out --amp')


def prepare_for_cpu(cfg: Config) -> None:
    """Start gloo and wrap the model for the CPU, if there is no GPU.

    Do nothing without a launcher. ``env_cfg.dist_cfg.timeout`` and
    ``default_hooks.heartbeat.limit`` apply as on a GPU.

    Raises:
        ValueError: The model has SyncBN, which needs a GPU in a process group
            (a single process gets BN from the Runner); or the launcher is
            neither torchrun nor Slurm; or the timeout is not a number.
    """
    if cfg.get('launcher', 'none') == 'none' or torch.cuda.is_available():
        return
    # Projector and predictor normalize vectors, the backbone feature maps.
    options = [f'{path}.type={"BN" if "backbone" in path else "BN1d"}'
               for path, _ in parts_of_type(cfg.model, 'SyncBN', 'model')]
    if options:
        raise ValueError('SyncBN needs a GPU and there is none: use BN, with '
                         f'--cfg-options {" ".join(options)}')
    cfg.setdefault('model_wrapper_cfg', dict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg['device_ids'] = None
    start_gloo(cfg.launcher, _timeout(cfg), limit=heartbeat_limit(cfg))


def heartbeat_limit(cfg: Config) -> float:
    """Return the limit of the HeartbeatHook of a config, in seconds."""
    hook = cfg.get('default_hooks', {}).get('heartbeat') or {}
    return hook.get('limit', LIMIT)


def _timeout(cfg: Config) -> timedelta:
    seconds = (
        cfg.get('env_cfg', {}).get('dist_cfg') or {}).get('timeout')
    if seconds is None:
        return TIMEOUT
    if not isinstance(seconds, (int, float)) or seconds <= 0:
        raise ValueError(f'env_cfg.dist_cfg.timeout is {seconds!r}, but must '
                         'be a positive number of seconds')
    return timedelta(seconds=seconds)
