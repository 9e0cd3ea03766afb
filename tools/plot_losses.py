"""Draw the losses, the learning rate and the training health."""
import argparse
import os.path as osp

from univip_mm.io.outputs import check_output_file
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.text import printable
from univip_mm.visualization import plot_loss_curves

EXAMPLE = '''
examples:
  python tools/plot_losses.py work_dirs/univip_r18_demo
  python tools/plot_losses.py work_dirs/univip_r50_coco --out curves.png
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    parser.add_argument('work_dir', help='work dir of the training, or a '
                        'scalars.json; the logs of resumed runs are joined')
    parser.add_argument('--out', metavar='PNG', help='picture to write '
                        '(default: losses.png in the work dir)')
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = parse_args()
    source = args.work_dir
    folder = osp.dirname(source) if osp.isfile(source) else source
    out = args.out or osp.join(folder, 'losses.png')
    with one_line_errors():
        check_output_file(osp.realpath(out), '--out')
        plot_loss_curves(source, out)
    print(f'curves: {printable(out)}')


if __name__ == '__main__':
    main()
