"""One process of a benchmark: run the package's own training or test tool.

:mod:`univip_mm.downstream.launch` starts these processes as
``python -m univip_mm.downstream.worker``, on machines with or without a GPU.
"""
import argparse
import runpy
import sys

import torch
from mmengine.config import Config

from ..engine.checkpoint import load_checkpoints_safely
from ..engine.config import parts_of_type
from ..utils.distributed import LAUNCHERS, leave, start_gloo
from ..utils.processes import end_with_launcher, use_only_gpu
from .packages import PACKAGES, TOOLS, find_tool


def cpu_options(cfg: Config, launcher: str) -> list[str]:
    """Return the ``--cfg-options`` for several processes without a GPU.

    SyncBN, which needs a GPU, becomes BN, and the model wrapper uses the CPU.
    A single process needs no options: the Runner replaces SyncBN.
    """
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


def main() -> None:
    """Run ``tools/train.py`` or ``tools/test.py`` of a package."""
    parser = argparse.ArgumentParser(
        description='Run the tool of a package. All other arguments go to '
        'this tool.', allow_abbrev=False)
    parser.add_argument('package', choices=PACKAGES)
    parser.add_argument('tool', choices=TOOLS)
    parser.add_argument('config')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none')
    parser.add_argument('--cfg-options', nargs='+', default=[])
    args, rest = parser.parse_known_args()
    end_with_launcher()
    load_checkpoints_safely()
    options = args.cfg_options + cpu_options(
        Config.fromfile(args.config), args.launcher)
    if args.launcher != 'none':
        use_only_gpu()
        if not torch.cuda.is_available():
            # init_dist of MMEngine needs a GPU.
            start_gloo(args.launcher)
    path = str(find_tool(args.package, args.tool))
    sys.argv = [path, args.config, *rest, '--launcher', args.launcher]
    if options:
        sys.argv += ['--cfg-options', *options]
    runpy.run_path(path, run_name='__main__')
    leave()


if __name__ == '__main__':
    main()
