"""Draw the transport plans of the instance-instance loss."""
import argparse
import os.path as osp

from univip_mm.visualization import PlanRow, draw_transport
from univip_mm.visualization.analysis import cut_scene, transport_of
from univip_mm.visualization.inspection import (
    Setup,
    make_parser,
    pick_samples,
    run_tool,
)

EXAMPLE = '''
examples:
  python tools/visualization/transport_plan.py configs/univip_r18_demo.py \\
      work_dirs/univip_r18_demo/epoch_14.pth --out plan.png
  python tools/visualization/transport_plan.py configs/univip_r50_coco.py \\
      work_dirs/univip_r50_coco/epoch_800.pth --out plan.png --number 5 \\
      --seed 1 --cfg-options model.instance_loss.epsilon=0.05
'''


def draw(setup: Setup, args: argparse.Namespace) -> str:
    """Write the picture and return a summary."""
    rows, kept, number = [], 0, 0
    for sample in pick_samples(setup, args.number):
        views = [view[..., ::-1] for view in sample['img']]
        transport = transport_of(setup.model, views)
        scene, boxes = cut_scene(sample, 800)
        loss = -(transport.similarity * transport.plan).sum()
        rows.append(
            PlanRow(f'{osp.basename(sample["img_path"])}   '
                    f'loss_instance {loss:.3f}', scene, boxes, views[2:],
                    *transport))
        kept += transport.plan.trace()
        number += len(boxes)
    draw_transport(
        rows, args.out,
        title='Transport plans between the instances, by '
        f'{osp.basename(args.checkpoint)}')
    return (f'{len(rows)} images with {number} instances; '
            f'{kept / len(rows):.0%} of the mass moves from an instance to '
            'itself')


def main() -> None:
    """Run the command."""
    run_tool(make_parser(__doc__, EXAMPLE, 3, 'images', has_branch=False),
             draw)


if __name__ == '__main__':
    main()
