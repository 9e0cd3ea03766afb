"""Process group of a training, started before the Runner is built."""
from datetime import timedelta
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from mmengine.utils.dl_utils import set_multi_processing

from ..utils.distributed import start_gloo


def start_group(launcher: str, cfg: Optional[Config] = None) -> None:
    """Join the processes of a launcher, so that they can compare configs.

    Do what the Runner does for ``env_cfg`` of the config, and use gloo if
    there is no GPU. The Runner keeps the group. Without a config, because it
    could not be read, use the defaults. Do nothing for the launcher 'none' or
    if the group already exists.

    Raises:
        ValueError: The launcher is unknown, or it did not start this process.
    """
    if launcher == 'none' or is_distributed():
        return
    env_cfg = cfg.get('env_cfg', {}) if cfg is not None else {}
    dist_cfg = env_cfg.get('dist_cfg', {})
    if torch.cuda.is_available():
        set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
        init_dist(launcher, **dist_cfg)
        return
    seconds = dist_cfg.get('timeout')
    start_gloo(launcher, seconds and timedelta(seconds=seconds))
