"""One process of a benchmark: the host's own tool, on a machine with or
without a GPU."""
import os
import runpy
import sys
from collections.abc import Sequence

import torch
from mmengine.config import Config, DictAction

from ..engine.checkpoint import load_checkpoints_safely
from ..engine.config import parts_of_type
from ..utils.distributed import leave, start_gloo
from .packages import host_tool


def run_host_tool(host: str, tool: str, config: str, launcher: str,
                  options: Sequence[str], arguments: Sequence[str]) -> None:
    """Run ``tools/train.py`` or ``tools/test.py`` of a package in this
    process.

    Args:
        host (str): 'mmdet', 'mmseg' or 'mmpretrain'.
        tool (str): 'train' or 'test'.
        config (str): Path of the config.
        launcher (str): 'none', 'pytorch' or 'slurm'.
        options (Sequence[str]): For ``--cfg-options``, "key=value".
        arguments (Sequence[str]): What comes after the config.
    """
    load_checkpoints_safely()
    options = [*options, *cpu_options(Config.fromfile(config), launcher)]
    if launcher != 'none' and not torch.cuda.is_available():
        # MMEngine's own start of the processes asks for a GPU.
        start_gloo(launcher)
    path = host_tool(host, tool)
    sys.argv = [str(path), config, *arguments, '--launcher', launcher]
    if options:
        sys.argv += ['--cfg-options', *options]
    # The working directory leads to a user's modules, as for the tool itself.
    sys.path.insert(0, os.getcwd())
    runpy.run_path(str(path), run_name='__main__')
    leave()


def cpu_options(cfg: Config, launcher: str) -> list[str]:
    """The options with which several processes train without a GPU: BN in
    the place of SyncBN, which needs one, and a wrapper for the CPU. In a
    single process the Runner takes BN itself."""
    if launcher == 'none' or torch.cuda.is_available():
        return []
    unused = cfg.get('find_unused_parameters', False)
    return [
        *(f'{path}.type=BN'
          for path, _ in parts_of_type(cfg.model, 'SyncBN', 'model')),
        'model_wrapper_cfg.type=MMDistributedDataParallel',
        'model_wrapper_cfg.device_ids=None',
        'model_wrapper_cfg.broadcast_buffers=False',
        f'model_wrapper_cfg.find_unused_parameters={unused}',
    ]


def parse_options(options: Sequence[str]) -> dict:
    """What ``--cfg-options`` makes of "key=value" words."""
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options
