"""Draw a t-SNE of a backbone's features of objects or of whole images,
coloured by category."""
import argparse
import os.path as osp

import numpy as np

from univip_mm.visualization.features import draw_points
from univip_mm.visualization.inspection import (
    Setup,
    add_arguments,
    add_branch,
    embed,
    nearest,
    pick_crops,
    run_tool,
)

SMALLEST = 5  # points of which a t-SNE says anything

EXAMPLE = '''
examples:
  python tools/visualization/tsne.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out tsne.png
whole images, coloured by the category of their largest object:
  python tools/visualization/tsne.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out tsne.png --what images
'''


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, 800, 'objects or images')
    add_branch(parser)
    parser.add_argument(
        '--what', choices=['objects', 'images'], default='objects',
        help="the annotated boxes of the data set's json, or whole images "
        '(default: %(default)s)')
    parser.add_argument(
        '--num-classes', type=int, default=10, metavar='N',
        help='only the most frequent categories (default: %(default)s)')
    parser.add_argument(
        '--perplexity', type=float, default=30,
        help='neighbours that a point is arranged by (default: %(default)s)')
    return parser


def draw(setup: Setup, args: argparse.Namespace) -> str:
    """Write the picture; what is to be said of it."""
    # Slow to import, and not needed for the help.
    from sklearn.manifold import TSNE
    for name in ('num_classes', 'perplexity'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} is '
                             f'{getattr(args, name)}: it must be at least 1')
    crops = pick_crops(setup, args.number, args.what, args.num_classes)
    if len(crops) < SMALLEST:
        raise ValueError(f'there are {len(crops)} {args.what} to draw: a '
                         f't-SNE needs at least {SMALLEST}; raise --number '
                         'or give more data')
    features = embed(setup.model, [x.picture for x in crops], args.branch)
    perplexity = min(args.perplexity, (len(crops) - 1) / 3)
    points = TSNE(
        perplexity=perplexity, init='pca',
        random_state=args.seed).fit_transform(features.numpy())
    names = [x.category for x in crops]
    draw_points(
        points, names, args.out,
        title=f'{len(crops)} {args.what} in the features of '
        f'{osp.basename(args.checkpoint)}',
        subtitle=agreement(features, crops) or 't-SNE of the backbone')
    return f'{len(crops)} {args.what}, perplexity {perplexity:g}'


def agreement(features, crops) -> str:
    """How often the nearest of another image is of the same category."""
    known = [i for i, x in enumerate(crops) if x.category is not None]
    paths = [crops[i].img_path for i in known]
    if len(set(paths)) < 2:
        return ''
    names = np.array([crops[i].category for i in known])
    features = features[known]
    same, chance = [], []
    for i in range(len(known)):
        (first, ), _ = nearest(features, paths, i, 1)
        others = np.array([path != paths[i] for path in paths])
        same.append(names[first] == names[i])
        chance.append((names[others] == names[i]).mean())
    return (f't-SNE; the nearest feature of another image is of the same '
            f'category for {np.mean(same):.0%} (chance {np.mean(chance):.0%})')


def main() -> None:
    run_tool(make_parser(), draw)


if __name__ == '__main__':
    main()
