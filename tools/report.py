"""Write the report of a training, report.html, which any browser shows."""
import argparse

from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.text import printable
from univip_mm.visualization.report import write_report
from univip_mm.visualization.run_files import read_run

EXAMPLE = '''
examples:
  python tools/report.py work_dirs/univip_r18_demo
  python tools/report.py work_dirs/univip_r50_coco --no-neighbours
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    parser.add_argument(
        'out', help='work dir of the training, running or finished, or the '
        'folder above its checkpoints')
    parser.add_argument(
        '--no-neighbours', action='store_true', help='leave out the picture '
        'of nearest neighbours, which executes the config in the folder and '
        'loads the latest checkpoint and some images')
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = parse_args()
    with one_line_errors():
        read_run(args.out)  # the folder is of a training
        if not args.no_neighbours:
            try:
                # PyTorch is slow to import.
                from univip_mm.visualization.neighbours import (
                    write_neighbours_of_run,
                )
                write_neighbours_of_run(args.out)
            except Exception as e:  # the report is complete without
                print('no nearest neighbours: '
                      f'{type(e).__name__}: {printable(e)}')
        path = write_report(args.out)
    print(f'report: {printable(path)}')


if __name__ == '__main__':
    main()
