"""Process group for training, started before the Runner is built."""
import math
from datetime import timedelta
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

from ..utils.distributed import (
    TIMEOUT,
    check_launcher,
    is_started,
    start_gloo,
)
from ..utils.heartbeat import LIMIT, start_heartbeat
from ..utils.processes import use_only_gpu


def start_group(launcher: str, cfg: Optional[Config] = None) -> None:
    """Join the processes of a launcher, so that they can compare configs.

    Do what the Runner does for ``env_cfg``, and start the heartbeat. Without
    a GPU, the backend is gloo. The Runner keeps the group. Without a config,
    because it could not be read, use the defaults. Do nothing for the
    launcher 'none' or if the group already exists.

    Raises:
        ValueError: The launcher is unknown, or it did not start this process;
            a time limit of the config is not a number; or the ranks cannot
            connect.
    """
    cfg = cfg or Config()
    env_cfg = cfg.get('env_cfg') or {}
    dist_cfg = env_cfg.get('dist_cfg') or {}
    timeout = _to_timedelta(dist_cfg.get('timeout'))
    hooks = cfg.get('default_hooks') or {}
    limit = (hooks.get('heartbeat') or {}).get('limit', LIMIT)
    if not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
        raise ValueError(f'default_hooks.heartbeat.limit is {limit!r}, but '
                         'must be a number of seconds, or 0 for no heartbeat')
    check_launcher(launcher)
    if launcher == 'none' or is_started():
        return
    if torch.cuda.is_available():
        use_only_gpu()
        set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
        init_dist(launcher, **dist_cfg)
        start_heartbeat(limit)
    else:
        start_gloo(launcher, timeout, limit=limit)


def _to_timedelta(seconds: object) -> timedelta:
    if seconds is None:
        return TIMEOUT
    if not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ValueError(f'env_cfg.dist_cfg.timeout is {seconds!r}, but must '
                         'be a positive number of seconds')
    return timedelta(seconds=seconds)
