"""Pre-train a model; the command line of MMPretrain's own tools/train.py."""
import argparse
import os
import os.path as osp

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import univip_mm  # noqa: F401
from univip_mm.engine.cpu import prepare_for_cpu

EXAMPLE = '''
examples:
  python tools/train.py configs/univip_r18_demo.py
  python tools/train.py configs/univip_r50_coco.py --amp --resume
  python tools/train.py configs/univip_r18_coco.py --cfg-options \\
      train_dataloader.dataset.data_root=/data/coco/
on several GPUs:
  bash tools/dist_train.sh configs/univip_r50_coco.py 8
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--work-dir',
        help='folder of checkpoints and logs (default: work_dirs/CONFIG)')
    parser.add_argument(
        '--resume',
        nargs='?',
        type=str,
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or, without one, from the latest '
        'in the work dir, or from the start where it has none')
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the actual total batch size over '
        "the config's auto_scale_lr.base_batch_size")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config, such as optim_wrapper.optimizer.'
        'lr=0.1; a list is written as key="[a,b]"')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes; the .sh files set it')
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
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    defaults = ConfigDict(
        pin_memory=torch.cuda.is_available(),
        persistent_workers=cfg.train_dataloader.num_workers > 0,
        collate_fn=dict(type='default_collate'))
    cfg.train_dataloader = ConfigDict({**defaults, **cfg.train_dataloader})
    return cfg


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    prepare_for_cpu(cfg)
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    runner.train()


if __name__ == '__main__':
    main()
