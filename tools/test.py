"""Evaluate a pre-trained backbone with the test_evaluator of the config."""
import argparse

import mmengine
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.runner import Runner

from univip_mm.engine.checkpoint import CheckpointError, find_checkpoint
from univip_mm.engine.config import (
    add_config_arguments,
    check_part,
    load_config,
)
from univip_mm.engine.cpu import prepare_for_cpu
from univip_mm.engine.process_group import start_group
from univip_mm.engine.rank_check import (
    RanksDifferError,
    check_config_agrees,
    errors_on_all_ranks,
)
from univip_mm.engine.weights_check import check_init_cfg, check_weights_fit
from univip_mm.io.outputs import check_output_file, check_output_folder
from univip_mm.utils.command import make_parser
from univip_mm.utils.distributed import leave
from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.processes import end_with_launcher
from univip_mm.utils.text import printable
from univip_mm.utils.unwrap import unwrap_model

EXAMPLE = r'''
examples:
  python tools/test.py configs/univip_r18_demo.py \
      work_dirs/univip_r18_demo/epoch_14.pth
the untrained network, as a baseline:
  python tools/test.py configs/univip_r18_demo.py
'''


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add_config_arguments(parser)
    parser.add_argument(
        'checkpoint', nargs='?', help='pre-training checkpoint (default: none,'
        ' evaluate the untrained network)')
    parser.add_argument('--out', help='JSON file for the metrics')
    return parser.parse_args()


def check_outputs(cfg: Config, args: argparse.Namespace) -> None:
    """Raise ValueError unless the log and the metrics can be written."""
    check_output_folder(cfg.work_dir, 'work_dir')
    if args.out is not None:
        if not args.out.endswith(('.json', '.yaml', '.yml', '.pkl')):
            raise ValueError(f"--out is '{args.out}': it must end in .json")
        check_output_file(args.out, '--out')


def main() -> None:
    """Run the tool; user errors end with a one-line message."""
    args = parse_args()
    end_with_launcher()
    cfg = None
    with one_line_errors():
        with errors_on_all_ranks(lambda: start_group(args.launcher, cfg)):
            cfg = load_config(args)
            check_outputs(cfg, args)
            check_part(cfg, 'test_dataloader')
            cfg.load_from = args.checkpoint
            find_checkpoint(cfg)
            prepare_for_cpu(cfg)
        check_config_agrees(cfg)
        runner = Runner.from_cfg(cfg)
        with errors_on_all_ranks():
            if args.checkpoint is None:
                check_init_cfg(cfg, runner.model)
            check_weights_fit(cfg, runner.model)
            runner.test_loop  # noqa: B018  reads the files of the data set
    try:
        if args.checkpoint is None:
            unwrap_model(runner.model).init_weights()
        metrics = runner.test()
    except (CheckpointError, RanksDifferError) as e:
        raise SystemExit(f'error: {printable(e)}') from None
    if args.out and get_rank() == 0:
        mmengine.dump(metrics, args.out, indent=1)


if __name__ == '__main__':
    main()
    leave()
