"""Measure every stage of the training next to a reference.

The functions of a comparison run in turns, image by image or call by call, so
that a machine whose speed changes does not distort the ratio. Run nothing else
on the machine at the same time. Prints the results, and writes speed.json and
a plot of how the cost grows.

On a GPU, the rows of the part `step` run one after the other, the most
important first, until --budget is used up. speed.json is written after each
row; --resume measures the missing rows.
"""
import argparse
import json
import os
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope
from speed_parts import modules
from speed_parts.goals import format_table
from speed_parts.growth import measure_growth
from speed_parts.loader import measure_loader
from speed_parts.memory import measure_memory
from speed_parts.table import measure_step
from speed_parts.timing import device

from univip_mm.io.atomic import atomic_write
from univip_mm.io.outputs import check_output_folder
from univip_mm.utils.errors import one_line_errors

EXAMPLE = '''
example:
  python tools/benchmarks/speed.py --data-root data/coco128 \\
      --ann-file annotations/instances_train2017.json --img-prefix train2017

  the training step on a GPU, in at most 5 minutes, then the rows that did not
  fit (a compilation takes minutes):
  python tools/benchmarks/speed.py --parts step --batch-size 64
  python tools/benchmarks/speed.py --parts step --batch-size 64 --resume \\
      --budget 1200
'''
PARTS = dict(
    loader=measure_loader, memory=measure_memory,
    augmentation=modules.measure_augmentation,
    sinkhorn=modules.measure_sinkhorn, ema=modules.measure_ema,
    step=measure_step, growth=measure_growth)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--data-root', default='data/coco128',
        help='folder of the data set (default: %(default)s)')
    add('--ann-file', default='annotations/instances_train2017.json',
        help='COCO JSON, below --data-root (default: %(default)s)')
    add('--img-prefix', default='train2017',
        help='image folder, below --data-root (default: %(default)s)')
    add('--num-images', type=int, default=128, metavar='N', help='the loader '
        'is measured on the first N images (default: %(default)s)')
    add('--step-ms', type=float, default=57.0, metavar='MS', help='time of a '
        'training step, for the number of cores that keep it busy (default: '
        '%(default)s, the bfloat16 recipe on one H100)')
    add('--images-per-step', type=int, default=64, metavar='N',
        help='images of that step (default: %(default)s)')
    add('--proposal-file', help='proposal file of the default rules (default: '
        'proposals.npz in --work-dir, made if it is missing)')
    add('--numpy1', metavar='FOLDER',
        help="folder of NumPy 1.26, installed by pip's --target; measures "
        "the host's BYOL pipeline too, which fails with NumPy 2")
    add('--depth', type=int, default=50,
        help='depth of the ResNet of ema and step (default: %(default)s)')
    add('--batch-size', type=int, default=8,
        help='images per step (default: %(default)s)')
    add('--threads', type=int, default=1,
        help="PyTorch's threads (default: %(default)s)")
    add('--parts', nargs='+', choices=PARTS, default=list(PARTS),
        help='what to measure (default: all)')
    add('--budget', type=float, metavar='SECONDS', help='time for the rows of '
        'the part step; further rows are reported as not measured (default: '
        '300 with a GPU, else no limit)')
    add('--resume', action='store_true', help='keep the rows of the part step '
        'that speed.json of --work-dir has already (with a GPU only)')
    add('--work-dir', type=Path, default='work_dirs/bench',
        help='folder of the output (default: %(default)s)')
    args = parser.parse_args()
    for option, value in (('--step-ms', args.step_ms),
                          ('--images-per-step', args.images_per_step)):
        if value <= 0:
            parser.error(f'{option} is {value}: it must be above 0')
    return args


def describe_run(args: argparse.Namespace) -> dict:
    """Return the machine, the versions and the options of this run."""
    gpu = torch.cuda.get_device_name() if device() == 'cuda' else 'no GPU'
    return dict(
        machine=f'{platform.machine()}, {os.cpu_count()} cores', device=gpu,
        date=date.today().isoformat(), torch=torch.__version__,
        numpy=np.__version__, opencv=cv2.__version__,
        images=Path(args.data_root).name, threads=args.threads,
        depth=args.depth, batch_size=args.batch_size)


def print_part(part: str, results: dict) -> None:
    """Print the results of a part as a table."""
    print(f'\n{part}')
    if part == 'step':
        print(format_table(results))
        return
    for name, value in results.items():
        if not isinstance(value, dict):
            print(f'  {name:62}{value:10.4g}')
            continue
        for series, points in value.items():
            row = '  '.join(f'{k}: {v:.3g}' for k, v in points.items())
            print(f'  {name}: {series:40}{row}')


def run_part(part: str, args: argparse.Namespace, run: dict,
             earlier: dict) -> Iterator[dict]:
    """Yield the results of a part, the part `step` after each row."""
    if part == 'step':
        yield from measure_step(args, run, earlier)
    else:
        yield PARTS[part](args)


def main() -> None:
    """Measure the chosen parts; keep the other parts of the file."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True  # as in the recipes
    cv2.setNumThreads(0)
    init_default_scope('univip_mm')
    with one_line_errors():
        check_output_folder(args.work_dir, '--work-dir')
    out = args.work_dir / 'speed.json'
    results = json.loads(out.read_text()) if out.exists() else {}
    results['run'] = run = describe_run(args)
    for part in args.parts:
        with one_line_errors():
            earlier = results.get(part, {})
            for measured in run_part(part, args, run, earlier):
                results[part] = measured
                with atomic_write(out, 'w') as file:
                    json.dump(results, file, indent=1)
        print_part(part, results[part])
    print(f'\nresults: {out}')


if __name__ == '__main__':
    main()
