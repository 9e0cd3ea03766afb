"""Export the backbone of a training to another library."""
import argparse

from univip_mm.downstream.export import FORMATS, export_backbone
from univip_mm.engine.branches import BRANCHES
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
    parser.add_argument(
        'source', metavar='CHECKPOINT_OR_OUT', help='checkpoint of UniVIP or '
        'BYOL, or the folder of a training, whose latest checkpoint is used')
    parser.add_argument(
        '--format', choices=FORMATS, default='mm',
        help='library that is to load the file (default: %(default)s)')
    parser.add_argument(
        '--branch', choices=BRANCHES, default='online', help='online: trained '
        'network; target: its moving average (default: %(default)s)')
    parser.add_argument(
        '--out', metavar='FILE', help='file to write (default: backbone with '
        'the suffix of the format, in OUT or beside the checkpoint)')
    parser.add_argument(
        '--config', help='config of the training, for a checkpoint that has '
        'none; the file is executed (default: the text in the checkpoint)')
    return parser.parse_args()


def main() -> None:
    """Export the backbone, and print how to load the file."""
    args = parse_args()
    with one_line_errors():
        exported = export_backbone(args.source, args.out, args.format,
                                   args.branch, args.config)
    numbers = sum(value.numel() for value in exported.weights.values())
    print(f'{exported.name}: {len(exported.weights)} tensors, '
          f'{numbers / 1e6:.1f} million numbers, {args.branch} branch, '
          f'written to {exported.path}\n\n{exported.snippet}')


if __name__ == '__main__':
    main()
