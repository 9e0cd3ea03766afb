"""Training without a GPU."""
import torch
from mmengine.config import Config

from .config import parts_of_type


def check_mixed_precision(cfg: Config) -> None:
    """Raise ValueError if mixed precision is on and there is no GPU."""
    amp = parts_of_type(cfg.optim_wrapper, 'AmpOptimWrapper', '')
    if any(amp) and not torch.cuda.is_available():
        raise ValueError(
            "mixed precision (optim_wrapper.type='AmpOptimWrapper') needs a "
            'GPU and there is none: leave out --amp, or use a config in '
            'float32')


def prepare_for_cpu(cfg: Config) -> None:
    """Set the model wrapper for several processes on a CPU.

    Do nothing without a launcher, or if there is a GPU.

    Raises:
        ValueError: The model has SyncBN, which needs a GPU in a process group
            (a single process gets BN from the Runner).
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
