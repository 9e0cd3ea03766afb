"""Draw the nearest neighbours of random objects or images, by the cosine of a
backbone's features."""
import argparse
import os.path as osp

import numpy as np

from univip_mm.visualization.features import Neighbours, draw_neighbours
from univip_mm.visualization.inspection import (
    Setup,
    add_arguments,
    add_branch,
    embed,
    nearest,
    pick_crops,
    run_tool,
)

EXAMPLE = '''
examples:
  python tools/visualization/neighbours.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out neighbours.png
whole images, of which no annotation is needed:
  python tools/visualization/neighbours.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out neighbours.png \\
      --what images --number 5000 --queries 12
'''


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, 1000, 'objects or images to search in')
    add_branch(parser)
    parser.add_argument(
        '--what', choices=['objects', 'images'], default='objects',
        help="the annotated boxes of the data set's json, or whole images "
        '(default: %(default)s)')
    parser.add_argument(
        '--queries', type=int, default=8, metavar='N',
        help='rows of the sheet, picked at random (default: %(default)s)')
    parser.add_argument(
        '--top-k', type=int, default=8, metavar='K',
        help='neighbours in a row (default: %(default)s)')
    return parser


def draw(setup: Setup, args: argparse.Namespace) -> str:
    """Write the picture; what is to be said of it."""
    for name in ('queries', 'top_k'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} is '
                             f'{getattr(args, name)}: it must be at least 1')
    crops = pick_crops(setup, args.number, args.what)
    paths = [x.img_path for x in crops]
    if len(set(paths)) < 2:
        raise ValueError(f'the {args.what} to search in are of one image, '
                         'and neighbours are sought in others: raise '
                         '--number or give more data')
    features = embed(setup.model, [x.picture for x in crops], args.branch)
    rows, same, named = [], 0, 0
    for query in np.random.permutation(len(crops))[:args.queries]:
        found, cosines = nearest(features, paths, query, args.top_k)
        name = crops[query].category
        rows.append(
            Neighbours(crops[query].picture, name,
                       [crops[i].picture for i in found],
                       [crops[i].category for i in found], cosines))
        if name is not None:
            named += len(found)
            same += sum(crops[i].category == name for i in found)
    draw_neighbours(
        rows, args.out,
        title=f'Nearest of {len(crops)} {args.what} in the features of '
        f'{osp.basename(args.checkpoint)}')
    said = f'{len(rows)} queries among {len(crops)} {args.what}'
    if named:
        said += (f'; {same} of {named} neighbours ({same / named:.0%}) are '
                 'of the same category')
    return said


def main() -> None:
    run_tool(make_parser(), draw)


if __name__ == '__main__':
    main()
