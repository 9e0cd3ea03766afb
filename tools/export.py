"""Export the backbone of a training to another library."""
import argparse

from univip_mm.downstream.command_line import add_source_options
from univip_mm.downstream.export import FORMATS, export_backbone
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import one_line_errors

EXAMPLE = '''
formats:
  mm           MMPretrain, MMDetection, MMSegmentation (.pth)
  torchvision  ResNet, ResNeXt of torchvision.models (.pth)
  timm         ResNet, ResNeXt, ViT, Swin, and all networks of timm (.pth)
  detectron2   ResNet, ResNeXt, for MODEL.WEIGHTS (.pkl)
  safetensors  all networks, names as in mm (.safetensors)
  onnx         all networks, with pooled features (.onnx)
example:
  python tools/export.py OUT --format torchvision
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add_source_options(parser)
    parser.add_argument(
        '--format', choices=FORMATS, default='mm',
        help='library that is to load the file (default: %(default)s)')
    parser.add_argument(
        '--out', metavar='FILE', help='file to write (default: backbone with '
        'the suffix of the format, in OUT; backbone_epoch_10 for the '
        'checkpoint epoch_10.pth)')
    return parser.parse_args()


def main() -> None:
    """Export the backbone, and print how to load the file."""
    args = parse_args()
    with one_line_errors():
        exported = export_backbone(args.source, args.out, args.format,
                                   args.branch, args.config)
    print(f'{exported.describe(args.branch)}\n\n{exported.snippet}')


if __name__ == '__main__':
    main()
