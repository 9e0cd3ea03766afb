"""Pre-train a model, with the main options of MMPretrain's tools/train.py."""
import argparse
from contextlib import ExitStack

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from univip_mm.engine.changed_run import ChangedRunError, NothingToDoError
from univip_mm.engine.checkpoint import CheckpointError, find_checkpoint
from univip_mm.engine.config import (
    add_config_arguments,
    check_part,
    check_runner_type,
    load_config,
)
from univip_mm.engine.cpu import prepare_for_cpu
from univip_mm.engine.loop_checks import check_loop
from univip_mm.engine.process_group import start_group
from univip_mm.engine.rank_check import (
    RanksDifferError,
    check_config_agrees,
    errors_on_all_ranks,
)
from univip_mm.engine.training_checks import check_training
from univip_mm.engine.weights_check import check_init_cfg, check_weights_fit
from univip_mm.io.images import NoReadableImageError, TooManyUnreadableError
from univip_mm.io.outputs import check_output_folder
from univip_mm.io.work_dir_lock import work_dir_lock
from univip_mm.models.step_graph import GraphError
from univip_mm.utils.command import make_parser
from univip_mm.utils.distributed import leave
from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.loader_workers import stop_workers
from univip_mm.utils.processes import end_with_launcher
from univip_mm.utils.text import printable

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
    """Return the options of the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add_config_arguments(parser)
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT',
        help='resume from this checkpoint; without a path, from the latest '
        'checkpoint in the work dir, or from the start if there is none')
    parser.add_argument(
        '--amp', action='store_true',
        help='use automatic mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr', action='store_true',
        help='multiply the learning rate by the total batch size divided by '
        'auto_scale_lr.base_batch_size of the config')
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the training options and the host's defaults, then check all."""
    check_part(cfg, 'train_dataloader')
    check_runner_type(cfg)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        check_part(cfg, 'auto_scale_lr')
        cfg.auto_scale_lr.enable = True
    defaults = dict(
        pin_memory=torch.cuda.is_available(), persistent_workers=True,
        collate_fn=dict(type='univip_mm.collate_views'))
    cfg.train_dataloader = ConfigDict({**defaults, **cfg.train_dataloader})
    if not torch.cuda.is_available():
        cfg.train_dataloader.pin_memory = False  # PyTorch would warn
    if cfg.train_dataloader.num_workers == 0:
        cfg.train_dataloader.persistent_workers = False
    find_checkpoint(cfg)
    check_training(cfg)


def prepare(args: argparse.Namespace, stack: ExitStack) -> Runner:
    """Check everything on all ranks, and build the Runner.

    ``stack`` releases the lock of the work dir.

    Raises:
        FileNotFoundError: A file is missing, on any rank.
        ValueError: A mistake of the user on any rank, or ranks that differ.
    """
    cfg = None
    with errors_on_all_ranks(lambda: start_group(args.launcher, cfg)):
        cfg = load_config(args)
        apply_options(cfg, args)
        prepare_for_cpu(cfg)
    check_config_agrees(cfg)
    with errors_on_all_ranks():
        check_output_folder(cfg.work_dir, 'work_dir')
        if get_rank() == 0:
            stack.enter_context(work_dir_lock(cfg.work_dir))
    runner = (RUNNERS.build(cfg) if 'runner_type' in cfg else
              Runner.from_cfg(cfg))
    with errors_on_all_ranks():
        check_init_cfg(cfg, runner.model)
        check_weights_fit(cfg, runner.model)
        check_loop(runner)  # reads the files of the data set
    return runner


def train(runner: Runner) -> None:
    """Train; known errors end with a one-line message."""
    try:
        runner.train()
    except NothingToDoError:
        pass  # reported by the hook
    except (ChangedRunError, CheckpointError, GraphError, RanksDifferError,
            NoReadableImageError) as e:
        # Possibly of one rank only; ranks that differ report once per node.
        raise SystemExit(f'error: {printable(e)}') from None
    except (TooManyUnreadableError, FloatingPointError) as e:
        # The hooks raise on all ranks.
        raise SystemExit(
            f'error: {printable(e)}' if get_rank() == 0 else 1) from None
    finally:
        stop_workers(runner.train_dataloader)


def main() -> None:
    """Run the tool; user errors end with a one-line message."""
    args = parse_args()
    end_with_launcher()
    with ExitStack() as stack, one_line_errors(
            '--resume continues from the last checkpoint', types=()):
        with one_line_errors():
            runner = prepare(args, stack)
        train(runner)


if __name__ == '__main__':
    main()
    leave()
