"""Draw a t-SNE of the features of objects or images, colored by category."""
import argparse
import os.path as osp
from collections.abc import Sequence

import numpy as np
import torch

from univip_mm.visualization import draw_points
from univip_mm.visualization.analysis import embed, nearest
from univip_mm.visualization.inspection import (
    Crop,
    Setup,
    check_at_least_one,
    make_parser,
    pick_crops,
    run_tool,
)

MIN_POINTS = 5

EXAMPLE = '''
examples:
  python tools/visualization/tsne.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out tsne.png
whole images, colored by the category of their largest object:
  python tools/visualization/tsne.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out tsne.png --what images
'''


def draw(setup: Setup, args: argparse.Namespace) -> str:
    """Write the picture and return a summary."""
    # Slow to import, and not needed for the help.
    from sklearn.manifold import TSNE
    check_at_least_one(args, 'num_classes', 'perplexity')
    crops = pick_crops(setup, args.number, args.what, args.num_classes)
    if len(crops) < MIN_POINTS:
        raise ValueError(f'there are {len(crops)} {args.what} to draw, but a '
                         f't-SNE needs at least {MIN_POINTS}: raise --number '
                         'or give more data')
    features = embed(setup.model, [crop.view for crop in crops], args.branch)
    perplexity = min(args.perplexity, (len(crops) - 1) / 3)
    points = TSNE(
        perplexity=perplexity, init='pca',
        random_state=args.seed).fit_transform(features.numpy())
    draw_points(
        points, [crop.category for crop in crops], args.out,
        title=f'{len(crops)} {args.what} in the features of '
        f'{osp.basename(args.checkpoint)}',
        subtitle=describe_agreement(features, crops))
    return f'{len(crops)} {args.what}, perplexity {perplexity:g}'


def describe_agreement(features: torch.Tensor, crops: Sequence[Crop]) -> str:
    """Describe how often the nearest feature has the same category."""
    named = [i for i, crop in enumerate(crops) if crop.category is not None]
    paths = np.array([crops[i].img_path for i in named])
    if len(set(paths)) < 2:
        return 't-SNE of the backbone'
    names = np.array([crops[i].category for i in named])
    same, chance = [], []
    for i in range(len(named)):
        (first, ), _ = nearest(features[named], list(paths), i, 1)
        same.append(names[first] == names[i])
        chance.append((names[paths != paths[i]] == names[i]).mean())
    return ('t-SNE; the nearest feature of another image has the same '
            f'category for {np.mean(same):.0%} (chance {np.mean(chance):.0%})')


def main() -> None:
    """Run the command."""
    parser = make_parser(__doc__, EXAMPLE, 800, 'objects or images',
                         has_what=True)
    parser.add_argument(
        '--num-classes', type=int, default=10, metavar='N',
        help='number of categories, the most frequent ones (default: '
        '%(default)s)')
    parser.add_argument(
        '--perplexity', type=float, default=30,
        help='perplexity of the t-SNE, roughly the number of neighbours of '
        'a point (default: %(default)s)')
    run_tool(parser, draw)


if __name__ == '__main__':
    main()
