"""Make the demo's data set: synthetic scenes with COCO annotations."""
import argparse

from univip_mm.demo import make_scenes
from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.text import printable

EXAMPLE = '''
example:
  python tools/demo/make_data.py data/demo --num-train 2000 --num-val 400

The example takes about a minute on 2 cores. An existing data set of the same
options is kept; other data of this tool is replaced.
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('out_dir', nargs='?', default='data/demo',
        help='folder of the data set (default: %(default)s)')
    add('--num-train', type=int, default=2000, metavar='N',
        help='training images (default: %(default)s)')
    add('--num-val', type=int, default=400, metavar='N',
        help='validation images (default: %(default)s)')
    add('--seed', type=int, default=0,
        help='the same seed gives the same images (default: %(default)s)')
    add('--size', type=int, nargs=2, default=(320, 240),
        metavar=('WIDTH', 'HEIGHT'),
        help='image size in pixels (default: 320 240)')
    add('--workers', type=int, metavar='N',
        help='processes (default: one per core)')
    return parser.parse_args()


def main() -> None:
    """Make the data set and print its size."""
    args = parse_args()
    with one_line_errors():
        result = make_scenes(**vars(args))
    classes = ', '.join(f'{k} {n}' for k, n in result['per_class'].items())
    status = (f"made in {result['seconds']:.1f} s" if result['made'] else
              'which exists with the same options: nothing to do')
    print(f"{result['images']} images ({args.num_train} train, {args.num_val} "
          f"val) with {result['objects']} objects ({classes}) in "
          f"'{printable(args.out_dir)}', {status}.")


if __name__ == '__main__':
    main()
