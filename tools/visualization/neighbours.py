"""Draw nearest neighbours of random objects or images in feature space."""
import argparse
import os.path as osp

import numpy as np

from univip_mm.visualization import NeighbourRow, draw_neighbours, inspection
from univip_mm.visualization.analysis import embed, nearest

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
    crops = inspection.pick_crops(setup, args.number, args.what)
    paths = [crop.img_path for crop in crops]
    if len(set(paths)) < 2:
        raise ValueError(f'all {args.what} are from one image, but neighbours '
                         'are searched in other images: raise --number or '
                         'give more data')
    features = embed(setup.model, [crop.view for crop in crops], args.branch)
    rows, num_same, num_named = [], 0, 0
    for query in np.random.permutation(len(crops))[:args.queries]:
        indices, cosines = nearest(features, paths, query, args.top_k)
        view, _, name = crops[query]
        names = [crops[i].category for i in indices]
        rows.append(NeighbourRow(view, name, [crops[i].view for i in indices],
                                 names, cosines))
        if name is not None:
            num_named += len(names)
            num_same += names.count(name)
    draw_neighbours(rows, args.out, f'Nearest of {len(crops)} {args.what} in '
                    f'the features of {osp.basename(args.checkpoint)}')
    summary = f'{len(rows)} queries among {len(crops)} {args.what}'
    if num_named:
        summary += (f'; {num_same} of {num_named} neighbours '
                    f'({num_same / num_named:.0%}) have the same category')
    return summary


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
