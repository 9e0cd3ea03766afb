"""Draw nearest neighbours of random objects or images in feature space."""
import argparse
import os.path as osp

from univip_mm.visualization import inspection
from univip_mm.visualization.neighbours import write_neighbours

EXAMPLE = '''
examples:
  python tools/visualization/neighbours.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out neighbours.png
whole images, which need no annotations:
  python tools/visualization/neighbours.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out neighbours.png \\
      --what images --number 5000 --queries 12
'''


def draw(setup: inspection.Setup, args: argparse.Namespace) -> str:
    """Write the picture and return a summary."""
    return write_neighbours(
        setup, args.out, f'the features of {osp.basename(args.checkpoint)}',
        args.number, args.what, args.queries, args.top_k, args.branch)


def main() -> None:
    """Run the command."""
    parser = inspection.make_parser(
        __doc__, EXAMPLE, 1000, 'objects or images to search', has_what=True)
    parser.add_argument(
        '--queries', type=int, default=8, metavar='N',
        help='rows of the picture, sampled at random (default: %(default)s)')
    parser.add_argument('--top-k', type=int, default=8, metavar='K',
                        help='neighbours per row (default: %(default)s)')
    inspection.run_tool(parser, draw, '--queries', '--top-k')


if __name__ == '__main__':
    main()
