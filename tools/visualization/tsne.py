"""Draw a t-SNE of the features of objects or images, colored by category."""
import argparse
import os.path as osp

import numpy as np
import torch

from univip_mm.visualization import draw_points, inspection
from univip_mm.visualization.analysis import embed, nearest

MIN_POINTS = 5

EXAMPLE = '''
examples:
  python tools/visualization/tsne.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out tsne.png
whole images, colored by the category of their largest object:
  python tools/visualization/tsne.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out tsne.png --what images
'''


def draw(setup: inspection.Setup, args: argparse.Namespace) -> str:
    """Write the picture and return a summary."""
    # Slow to import, and not needed for the help.
    from sklearn.manifold import TSNE
    crops = inspection.pick_crops(setup, args.number, args.what,
                                  args.num_classes)
    if len(crops) < MIN_POINTS:
        raise ValueError(f'there are {len(crops)} {args.what} to draw, but a '
                         f't-SNE needs at least {MIN_POINTS}: raise --number '
                         'or give more data')
    features = embed(setup.model, [crop.view for crop in crops], args.branch)
    perplexity = min(args.perplexity, (len(crops) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init='pca', random_state=args.seed)
    draw_points(
        tsne.fit_transform(features.numpy()),
        [crop.category for crop in crops], args.out,
        f'{len(crops)} {args.what} in the features of '
        f'{osp.basename(args.checkpoint)}', describe_agreement(features, crops)
    )
    return f'{len(crops)} {args.what}, perplexity {perplexity:g}'


def describe_agreement(features: torch.Tensor,
                       crops: list[inspection.Crop]) -> str:
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
    parser = inspection.make_parser(__doc__, EXAMPLE, 800, 'objects or images',
                                    has_what=True)
    parser.add_argument(
        '--num-classes', type=int, default=10, metavar='N',
        help='number of categories, the most frequent ones (default: '
        '%(default)s)')
    parser.add_argument(
        '--perplexity', type=float, default=30,
        help='perplexity of the t-SNE, roughly the number of neighbours of '
        'a point (default: %(default)s)')
    inspection.run_tool(parser, draw, '--num-classes', '--perplexity')


if __name__ == '__main__':
    main()
