"""Draw the demo's data set: scenes of several objects, with COCO jsons."""
import argparse
import sys

from univip_mm.demo import make_scenes

EXAMPLE = """example:
  python tools/demo/make_data.py data/demo --num-train 2000 --num-val 400

The images of --num-train 2000 --num-val 400 take about a minute on 2 cores.
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'out_dir', nargs='?', default='data/demo',
        help='folder of the data set; default: data/demo')
    parser.add_argument(
        '--num-train', type=int, default=2000,
        help='images to train on; default: 2000')
    parser.add_argument(
        '--num-val', type=int, default=400,
        help='images to evaluate on; default: 400')
    parser.add_argument(
        '--seed', type=int, default=0,
        help='the same seed gives the same images; default: 0')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(320, 240),
        metavar=('WIDTH', 'HEIGHT'),
        help='size of the images, pixels; default: 320 240')
    parser.add_argument(
        '--workers', type=int, default=None,
        help='processes; default: one for each core')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        told = make_scenes(**vars(args))
    except (ValueError, OSError) as e:
        sys.exit(f'error: {e}')
    classes = ', '.join(f'{name} {n}' for name, n in told['per_class'].items())
    what = (f"made in {told['seconds']:.1f} s" if told['made'] else
            'there already, made with the same parameters: nothing to do')
    print(f"{told['images']} images ({args.num_train} train, {args.num_val} "
          f"val) with {told['objects']} objects ({classes}) in "
          f"'{args.out_dir}', {what}.")


if __name__ == '__main__':
    main()
