"""Export the backbone of a pre-training checkpoint for fine-tuning."""
import argparse

from univip_mm.downstream.command_line import add_branch_option
from univip_mm.downstream.export import export_backbone
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import one_line_errors

EXAMPLE = '''
example:
  python tools/extract_backbone.py work_dirs/univip_r50_coco/epoch_800.pth \\
      univip_r50_coco.pth
Use the file in a config of mmdetection, mmsegmentation or mmpretrain:
  model = dict(backbone=dict(init_cfg=dict(
      type='Pretrained', checkpoint='univip_r50_coco.pth')))
With --format torchvision, load the file in torchvision (only fc is missing):
  resnet50().load_state_dict(torch.load('univip_r50_coco.pth'), strict=False)
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    parser.add_argument('checkpoint', help='checkpoint of UniVIP or BYOL')
    parser.add_argument('out', help='file to write')
    parser.add_argument(
        '--format', choices=('mm', 'torchvision'), default='mm',
        help='mm: for the OpenMMLab packages; torchvision: plain state dict, '
        'checked against torchvision.models (default: %(default)s). Both '
        'formats record the source checkpoint')
    add_branch_option(parser)
    return parser.parse_args()


def main() -> None:
    """Extract the backbone, write it, and print a summary."""
    args = parse_args()
    with one_line_errors():
        exported = export_backbone(args.checkpoint, args.out, args.format,
                                   args.branch)
    print(exported.describe(args.branch))


if __name__ == '__main__':
    main()
