"""Recompute the batch that stopped a training, and find the fault.

The tool prints each loss, the gradients of each part of the network, the
first layer whose output is not finite, and the image that causes it.
"""
import argparse
import importlib
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from univip_mm.engine.recompute import (
    build_model,
    compute,
    is_finite,
    preprocess_batch,
    without_image,
)
from univip_mm.engine.replay import PRECISIONS, image_names, load_replay
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import USER_ERRORS, one_line_errors
from univip_mm.utils.text import printable

EXAMPLE = """
examples:
  python tools/replay_batch.py work_dirs/univip_r50_coco/non_finite/\\
iter_5012_rank3.pth
to check if the precision is the reason:
  python tools/replay_batch.py iter_5012_rank3.pth --precision float32
"""


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    parser.add_argument('file', help='replay file that NonFiniteHook wrote')
    parser.add_argument(
        '--precision', choices=PRECISIONS,
        help='precision of autocast (default: as in the training)')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device (default: %(default)s)')
    parser.add_argument(
        '--no-search', action='store_true',
        help='do not search for the image that causes the fault; the search '
        'needs one pass for each image of the batch')
    parser.add_argument(
        '--import', dest='modules', nargs='+', default=[], metavar='MODULE',
        help='your modules that register parts of the model; the '
        'custom_imports in the file are not imported, for safety')
    return parser.parse_args()


def report(computed: dict) -> None:
    """Print which losses and which parts of the network are finite."""
    for name, value in computed['terms'].items():
        note = '' if math.isfinite(value) else '   NOT FINITE'
        print_row(name, f'{value:.6g}{note}')
    parts = defaultdict(list)
    for name, finite in computed['gradients'].items():
        parts[name.split('.')[0]].append((name, finite))
    for part, names in parts.items():
        bad = [name for name, finite in names if not finite]
        print_row(f'gradient of {part}', 'finite' if not bad else
                  f'NOT FINITE in {len(bad)} of {len(names)} parameters, the '
                  f'last is {bad[-1]}')
    if computed['first_layer']:
        print_row('first layer', f'{computed["first_layer"]} is the first '
                  'layer whose output is not finite')


def search(model: torch.nn.Module, preprocessed: dict, names: list,
           precision: str) -> None:
    """Print the images without which all values are finite."""
    number = len(preprocessed['inputs'][0])
    if number < 3:
        print_row('image', f'not searched: without one of {number} images, '
                  'the batch is too small for batch norm')
        return
    culprits = [index for index in range(number) if is_finite(compute(
        model, without_image(preprocessed, index), precision))]
    for index in culprits:
        name = names[index] if index < len(names) else f'number {index}'
        print_row('image', f"without '{name}' all values are finite")
    if not culprits:
        print_row('image', 'no single image is the cause: the batch is not '
                  'finite without any one of them')


def print_row(name: str, text: str) -> None:
    """Print a line of the report; names can be from a file."""
    print(f'{printable(name):30}{printable(text)}')


@contextmanager
def replaying(path: str) -> Iterator[None]:
    """Turn the errors of a file with a wrong content into a ValueError."""
    try:
        yield
    except Exception as e:
        text = ' '.join(str(e).split())[:300]
        kind = '' if isinstance(e, ValueError) else f'{type(e).__name__}: '
        raise ValueError(
            f"'{path}' cannot be replayed: {kind}{text}") from None


def main() -> None:
    """Run the tool; user errors end with a one-line message."""
    args = parse_args()
    with one_line_errors(types=(*USER_ERRORS, ImportError)):
        content = load_replay(args.file)
        for module in args.modules:
            importlib.import_module(module)
        with replaying(args.file):
            model = build_model(content, args.device)
    precision = args.precision or content['precision']
    print_row('training', f'iteration {content["iteration"]}, rank '
              f'{content["rank"]}: {content["found"]} was not finite')
    print_row('here', f'{args.device}, {precision}')
    batches = content['batches']
    for number, batch in enumerate(batches, 1):
        if len(batches) > 1:
            print_row('accumulated batch', f'{number} of {len(batches)}')
        with one_line_errors(types=(ValueError, )), replaying(args.file):
            preprocessed = preprocess_batch(model, batch)
            computed = compute(model, preprocessed, precision)
        report(computed)
        if is_finite(computed):
            print_row('all values are finite', 'the fault needs another '
                      'device or precision, or the batch norm of several '
                      'processes')
        elif not args.no_search:
            search(model, preprocessed, image_names(batch), precision)


if __name__ == '__main__':
    main()
