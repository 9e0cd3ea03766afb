"""Evaluate a pre-trained backbone as the config's test_evaluator says."""
import argparse
import os
import os.path as osp
from pathlib import Path

import mmengine
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

import univip_mm  # noqa: F401
from univip_mm.engine.cpu import prepare_for_cpu

EXAMPLE = '''
examples:
  python tools/test.py configs/univip_r18_demo.py work_dirs/demo/latest.pth
the same network untrained, to compare with:
  python tools/test.py configs/univip_r18_demo.py
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='pre-training checkpoint; left out, the untrained network is '
        'evaluated')
    parser.add_argument(
        '--work-dir',
        help='folder of the log (default: work_dirs/CONFIG)')
    parser.add_argument('--out', help='write the metrics to this json')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """The config with the command line's options in it."""
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs',
                                osp.splitext(osp.basename(args.config))[0])
    if cfg.get('test_dataloader') is None:
        raise SystemExit(f"error: '{args.config}' has no test_dataloader: "
                         'configs/univip_r18_demo.py shows one')
    if args.checkpoint is not None and not Path(args.checkpoint).is_file():
        raise SystemExit(f"error: there is no checkpoint '{args.checkpoint}'")
    cfg.load_from = args.checkpoint
    return cfg


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    prepare_for_cpu(cfg)
    runner = Runner.from_cfg(cfg)
    if args.checkpoint is None:
        runner.model.init_weights()
    metrics = runner.test()
    if args.out:
        mmengine.dump(metrics, args.out, indent=1)


if __name__ == '__main__':
    main()
