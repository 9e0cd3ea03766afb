"""Training without a GPU: gloo for several processes, and what needs a GPU."""
import torch
from mmengine.config import Config

from ..utils.distributed import start_gloo
from .config import parts_of_type


def check_mixed_precision(cfg: Config) -> None:
    """Raise ValueError if mixed precision is on and there is no GPU."""
    if (cfg.optim_wrapper.get('type') == 'AmpOptimWrapper'
            and not torch.cuda.is_available()):
        raise ValueError('mixed precision needs a GPU and there is none: '
                         'leave out --amp')


def prepare_for_cpu(cfg: Config) -> None:
    """Start gloo and wrap the model for the CPU, if there is no GPU.

    Without a launcher, or with a GPU, do nothing. MMEngine's ``init_dist``
    requires a GPU even for gloo, so the process group is started here.

    Raises:
        ValueError: The model has SyncBN, which needs a GPU in a process group
            (a single process gets BN from the Runner); or the launcher is
            neither torchrun nor Slurm.
    """
    if cfg.get('launcher', 'none') == 'none' or torch.cuda.is_available():
        return
    keys = [path for path, _ in parts_of_type(cfg.model, 'SyncBN', 'model')]
    if keys:
        raise ValueError(
            'SyncBN needs a GPU and there is none: use BN, with '
            f'--cfg-options {" ".join(map(_batch_norm_option, keys))}')
    cfg.setdefault('model_wrapper_cfg', dict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg['device_ids'] = None
    start_gloo(cfg.launcher)


def _batch_norm_option(key: str) -> str:
    # Projector and predictor normalize vectors, the backbone feature maps.
    return f'{key}.type={"BN" if "backbone" in key else "BN1d"}'
