"""Draw maps of the similarity between a scene and its instances."""
import argparse
import os.path as osp

from univip_mm.visualization import SimilarityRow, draw_similarity, inspection
from univip_mm.visualization.analysis import cut_scene, similarity_maps

EXAMPLE = '''
examples:
  python tools/visualization/similarity_map.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out maps.png
  python tools/visualization/similarity_map.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out maps.png \\
      --scene-size 640 --branch target
'''


def draw(setup: inspection.Setup, args: argparse.Namespace) -> str:
    """Write the picture and return a summary."""
    size = args.scene_size
    if size is None:
        size = 2 * setup.crop.scene_size
    if size < 32:
        raise ValueError(f'--scene-size is {size}: it must be at least 32')
    rows = []
    for sample in inspection.pick_samples(setup, args.number):
        scene, boxes = cut_scene(sample, size)
        views = [view[..., ::-1] for view in sample['img'][2:]]
        maps = similarity_maps(setup.model, scene, views, args.branch)
        rows.append(SimilarityRow(osp.basename(sample['img_path']), scene,
                                  boxes, maps))
    draw_similarity(
        rows, args.out, 'Similarity of each instance with its scene, in the '
        f'features of {osp.basename(args.checkpoint)}')
    return f'{len(rows)} scenes of {size} pixels'


def main() -> None:
    """Run the command."""
    parser = inspection.make_parser(__doc__, EXAMPLE, 4, 'images')
    parser.add_argument(
        '--scene-size', type=int, metavar='PIXELS',
        help='longer side of the scene. Larger scenes have finer maps, but '
        "differ more from the training's (default: twice the config's)")
    inspection.run_tool(parser, draw)


if __name__ == '__main__':
    main()
