"""Write the features of images from the backbone of a training."""
import argparse

from univip_mm.downstream.command_line import add_source_options
from univip_mm.downstream.embed import embed
from univip_mm.downstream.feature_file import snippet
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import ALL_ERRORS, one_line_errors
from univip_mm.utils.text import printable

EXAMPLE = '''
example:
  python tools/embed.py OUT photographs --out features.npz
A call that was stopped resumes if it is repeated.
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add_source_options(parser)
    parser.add_argument(
        'data', nargs='+', metavar='DATA', help='folder of images, .zip or '
        '.tar of images, or a COCO json with its folder as JSON:FOLDER')
    parser.add_argument(
        '--out', required=True, metavar='FILE',
        help='file to write: .npz, .csv or .parquet')
    parser.add_argument(
        '--size', type=int, default=224, help='side of the center crop in '
        'pixels, after a resize to 256/224 of it (default: %(default)s)')
    parser.add_argument(
        '--batch-size', type=int, default=64,
        help='images per step (default: %(default)s)')
    parser.add_argument(
        '--device', default='auto',
        help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--workers', type=int, help='processes that decode images (default: '
        'one per core, at most 8)')
    return parser.parse_args()


def main() -> None:
    """Write the features, and print how to read the file."""
    args = parse_args()
    with one_line_errors('repeat the command to resume', ALL_ERRORS):
        done = embed(
            args.source, args.data, args.out, branch=args.branch,
            batch_size=args.batch_size, size=args.size, device=args.device,
            workers=args.workers, config=args.config)
    print(f'{done.images} images x {done.channels} numbers, {args.branch} '
          f'branch, written to {printable(done.path)}\n\n'
          f'{snippet(done.path)}')


if __name__ == '__main__':
    main()
