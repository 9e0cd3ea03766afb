"""Pre-train a model; the command line of MMPretrain's own tools/train.py."""
import argparse
from pickle import UnpicklingError

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import univip_mm  # noqa: F401
from univip_mm.engine.checkpoint import describe_refusal
from univip_mm.engine.config import (
    add_config_arguments,
    check_num_instances,
    check_part,
    find_checkpoint,
    load_config,
)
from univip_mm.engine.config_checks import check_config, check_network
from univip_mm.engine.cpu import check_mixed_precision, prepare_for_cpu
from univip_mm.io.images import NoReadableImageError, TooManyUnreadableError
from univip_mm.utils.distributed import leave

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
    add_config_arguments(parser)
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
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Put the options of training, and the host's defaults, into the config.

    Raises:
        FileNotFoundError: The checkpoint to go on from is missing.
        ValueError: The config lacks something, or contradicts itself.
    """
    check_part(cfg, 'train_dataloader')
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        check_part(cfg, 'auto_scale_lr')
        cfg.auto_scale_lr.enable = True
    defaults = ConfigDict(
        pin_memory=torch.cuda.is_available(),
        persistent_workers=True,
        collate_fn=dict(type='default_collate'))
    cfg.train_dataloader = ConfigDict({**defaults, **cfg.train_dataloader})
    if cfg.train_dataloader.num_workers == 0:
        cfg.train_dataloader.persistent_workers = False
    find_checkpoint(cfg)
    check_config(cfg)
    check_num_instances(cfg)
    check_mixed_precision(cfg)
    check_network(cfg)


def main() -> None:
    args = parse_args()
    try:
        cfg = load_config(args)
        apply_options(cfg, args)
        prepare_for_cpu(cfg)
        runner = (
            RUNNERS.build(cfg)
            if 'runner_type' in cfg else Runner.from_cfg(cfg))
        runner.train_loop  # noqa: B018  reads the data set's files
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None
    try:
        runner.train()
    except UnpicklingError as e:  # by the Runner, of what it resumes from
        raise SystemExit(
            f'error: {describe_refusal(cfg.load_from, e)}') from None
    except TooManyUnreadableError as e:
        # The hook's is on all ranks; a loader's may be on this one alone.
        alone = isinstance(e, NoReadableImageError)
        raise SystemExit(
            f'error: {e}' if alone or get_rank() == 0 else 1) from None
    except FloatingPointError as e:  # on all ranks; one says so
        raise SystemExit(
            f'error: {e}' if get_rank() == 0 else 1) from None


if __name__ == '__main__':
    main()
    leave()
