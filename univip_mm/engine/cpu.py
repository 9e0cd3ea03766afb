"""Several processes without a GPU, which MMEngine does not provide for, and
what cannot be had without one."""
import torch
from mmengine.config import Config

from ..utils.distributed import start_gloo
from .config import parts_of_type


def check_mixed_precision(cfg: Config) -> None:
    """Whether there is the GPU that mixed precision needs.

    Raises:
        ValueError: There is none.
    """
    if (cfg.optim_wrapper.get('type') == 'AmpOptimWrapper'
            and not torch.cuda.is_available()):
        raise ValueError('mixed precision needs a GPU and there is none: '
                         'leave out --amp')


def prepare_for_cpu(cfg: Config) -> None:
    """Where a launcher starts processes on a machine without a GPU: start the
    process group (gloo) here, since MMEngine's ``init_dist`` asks for a GPU,
    and tell the Runner to wrap the model for the CPU. Otherwise nothing.

    Raises:
        ValueError: The model has SyncBN, which needs a GPU there (in a
            single process the Runner takes BN in its place); or the launcher
            is neither torchrun nor Slurm.
    """
    if cfg.get('launcher', 'none') == 'none' or torch.cuda.is_available():
        return
    keys = [path for path, _ in parts_of_type(cfg.model, 'SyncBN', 'model')]
    if keys:
        raise ValueError(
            'SyncBN needs a GPU and there is none: take BN, with '
            f'--cfg-options {" ".join(map(_batch_norm_option, keys))}')
    cfg.setdefault('model_wrapper_cfg', dict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg['device_ids'] = None
    start_gloo(cfg.launcher)


def _batch_norm_option(key: str) -> str:
    # The projector and the predictor normalise vectors, the backbone maps.
    return f'{key}.type={"BN" if "backbone" in key else "BN1d"}'
