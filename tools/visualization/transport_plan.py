"""Draw the transport plan between the instances of images: what the
instance-instance loss takes for the same object."""
import argparse
import os.path as osp

from univip_mm.visualization.features import Pairing, draw_transport
from univip_mm.visualization.inspection import (
    Setup,
    add_arguments,
    cut_scene,
    pick_samples,
    run_tool,
    transport_of,
)

EXAMPLE = '''
examples:
  python tools/visualization/transport_plan.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out plan.png
  python tools/visualization/transport_plan.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out plan.png --number 5 \\
      --seed 1 --cfg-options model.instance_loss.epsilon=0.05
'''


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, 3, 'images')
    return parser


def draw(setup: Setup, args: argparse.Namespace) -> str:
    """Write the picture; what is to be said of it."""
    pairings, agreed, total = [], 0, 0
    for sample in pick_samples(setup, args.number):
        views = [view[..., ::-1] for view in sample['img']]
        transport = transport_of(setup.model, views)
        scene, boxes = cut_scene(sample, 800)
        loss = -(transport.similarity * transport.plan).sum()
        pairings.append(
            Pairing(f'{osp.basename(sample["img_path"])}   '
                    f'loss_instance {loss:.3f}', scene, boxes, views[2:],
                    *transport))
        agreed += transport.plan.diagonal().sum()
        total += len(boxes)
    draw_transport(
        pairings, args.out,
        title='Transport plans between the instances, by '
        f'{osp.basename(args.checkpoint)}')
    return (f'{len(pairings)} images with {total} instances; '
            f'{agreed / len(pairings):.0%} of the mass goes from an instance '
            'to itself')


def main() -> None:
    run_tool(make_parser(), draw)


if __name__ == '__main__':
    main()
