"""Compute the losses and gradients of a batch again that ended a training, and
find what in it is to blame."""
import argparse
import importlib
import math
from collections import defaultdict

import torch

from univip_mm.engine.replay import (
    build_model,
    compute,
    image_names,
    is_finite,
    load_replay,
    prepare,
    without_image,
)

EXAMPLE = """
examples:
  python tools/replay_batch.py work_dirs/univip_r50_coco/non_finite/\\
iter_5012_rank3.pth
is it the precision?
  python tools/replay_batch.py iter_5012_rank3.pth --precision float32
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', help='replay file that NonFiniteHook wrote')
    parser.add_argument(
        '--precision',
        choices=['float32', 'bfloat16', 'float16'],
        help='of autocast (default: that of the training)')
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='default: %(default)s')
    parser.add_argument(
        '--no-search',
        action='store_true',
        help='do not look for the image to blame, which takes a pass for '
        'each image of the batch')
    parser.add_argument(
        '--import',
        dest='modules',
        nargs='+',
        default=[],
        metavar='MODULE',
        help='modules of yours that register parts of the model; those that '
        'the config in the file names are not imported')
    return parser.parse_args()


def report(computed: dict) -> None:
    """Print what is finite, by loss and by part of the network."""
    for name, value in computed['terms'].items():
        note = '' if math.isfinite(value) else '   NOT FINITE'
        print(f'{name:30}{value:.6g}{note}')
    parts = defaultdict(list)
    for name, finite in computed['gradients'].items():
        parts[name.split('.')[0]].append((name, finite))
    for part, names in parts.items():
        bad = [name for name, finite in names if not finite]
        note = 'finite' if not bad else (
            f'NOT FINITE in {len(bad)} of {len(names)} parameters, the last '
            f'{bad[-1]}')
        print(f'{f"gradient of {part}":30}{note}')
    if computed['first_layer']:
        print(f'{"first layer":30}{computed["first_layer"]} has the first '
              'output that is not finite')


def search(model: torch.nn.Module, prepared: dict, names: list,
           precision: str) -> None:
    """Print the images without which all is finite."""
    number = len(prepared['inputs'][0])
    if number < 3:
        print(f'{"image":30}not searched: without one of {number} no batch '
              'is left to normalise')
        return
    cures = [
        index for index in range(number) if is_finite(
            compute(model, without_image(prepared, index), precision))
    ]
    for index in cures:
        name = names[index] if index < len(names) else f'number {index}'
        print(f"{'image':30}without '{name}' all is finite")
    if not cures:
        print(f'{"image":30}none alone: without any one of them it is still '
              'not finite')


def main() -> None:
    args = parse_args()
    try:
        content = load_replay(args.file)
        for module in args.modules:
            importlib.import_module(module)
        model = build_model(content, args.device)
    except (ValueError, FileNotFoundError, ImportError) as e:
        raise SystemExit(f'error: {e}') from None
    precision = args.precision or content['precision']
    print(f'{"training":30}iteration {content["iteration"]}, rank '
          f'{content["rank"]}: {content["found"]} was not finite')
    print(f'{"here":30}{args.device}, {precision}')
    for number, batch in enumerate(content['batches'], 1):
        if len(content['batches']) > 1:
            print(f'{"accumulated batch":30}{number} of '
                  f'{len(content["batches"])}')
        try:
            prepared = prepare(model, batch)
        except ValueError as e:
            raise SystemExit(f'error: {e}') from None
        computed = compute(model, prepared, precision)
        report(computed)
        if is_finite(computed):
            print(f'{"all is finite here":30}on another device, or with batch '
                  'statistics of one process alone')
        elif not args.no_search:
            search(model, prepared, image_names(batch), precision)


if __name__ == '__main__':
    main()
