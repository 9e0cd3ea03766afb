"""Draw where in a scene a backbone sees what it sees in each of its
instances."""
import argparse
import os.path as osp

from univip_mm.visualization.features import draw_similarity
from univip_mm.visualization.inspection import (
    Setup,
    add_arguments,
    add_branch,
    cut_scene,
    pick_samples,
    run_tool,
    similarity_maps,
)

EXAMPLE = '''
examples:
  python tools/visualization/similarity_map.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out maps.png
  python tools/visualization/similarity_map.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out maps.png \\
      --scene-size 640 --branch target
'''


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, 4, 'images')
    add_branch(parser)
    parser.add_argument(
        '--scene-size', type=int, metavar='PIXELS',
        help="longer side of the scene: the larger, the finer the maps, but "
        "the further from what the network was trained with (default: twice "
        "the config's)")
    return parser


def draw(setup: Setup, args: argparse.Namespace) -> str:
    """Write the picture; what is to be said of it."""
    size = args.scene_size
    if size is None:
        size = 2 * setup.crop.scene_size
    if size < 32:
        raise ValueError(f'--scene-size is {size}: it must be at least 32')
    rows = []
    for sample in pick_samples(setup, args.number):
        scene, boxes = cut_scene(sample, size)
        views = [view[..., ::-1] for view in sample['img'][2:]]
        rows.append((osp.basename(sample['img_path']), scene, boxes,
                     similarity_maps(setup.model, scene, views, args.branch)))
    draw_similarity(
        rows, args.out,
        title='Similarity of each instance with its scene, in the features '
        f'of {osp.basename(args.checkpoint)}')
    return f'{len(rows)} scenes of {size} pixels'


def main() -> None:
    run_tool(make_parser(), draw)


if __name__ == '__main__':
    main()
