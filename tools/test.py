"""Evaluate a pre-trained backbone as the config's test_evaluator says."""
import argparse
from pickle import UnpicklingError

import mmengine
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

import univip_mm  # noqa: F401
from univip_mm.engine.checkpoint import describe_refusal
from univip_mm.engine.config import (
    add_config_arguments,
    check_part,
    find_checkpoint,
    load_config,
)
from univip_mm.engine.cpu import prepare_for_cpu
from univip_mm.utils.distributed import leave

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
    add_config_arguments(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='pre-training checkpoint; left out, the untrained network is '
        'evaluated')
    parser.add_argument('--out', help='write the metrics to this json')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        cfg = load_config(args)
        check_part(cfg, 'test_dataloader')
        cfg.load_from = args.checkpoint
        find_checkpoint(cfg)
        prepare_for_cpu(cfg)
        runner = Runner.from_cfg(cfg)
        runner.test_loop  # noqa: B018  reads the data set's files
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None
    if args.checkpoint is None:
        model = runner.model
        (model.module if is_model_wrapper(model) else model).init_weights()
    try:
        metrics = runner.test()
    except UnpicklingError as e:
        raise SystemExit(
            f'error: {describe_refusal(args.checkpoint, e)}') from None
    if args.out:
        mmengine.dump(metrics, args.out, indent=1)


if __name__ == '__main__':
    main()
    leave()
