"""Pre-train a backbone on a folder of images, without labels or a config.

The command lists the images, searches for objects in them, chooses the
settings, trains, and writes the backbone and a report to OUT. Ctrl-C saves a
checkpoint. After an interruption, repeat the command: it resumes.
"""
import argparse

from univip_mm.downstream.launch import parse_options
from univip_mm.engine.architectures import ARCHITECTURES
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import ALL_ERRORS, one_line_errors
from univip_mm.utils.processes import end_with_launcher
from univip_mm.workflow.launch import TrainingError
from univip_mm.workflow.pretrain import ADVICE, pretrain

EXAMPLE = '''
examples:
  python tools/pretrain.py photographs --out runs/first --arch resnet18
  python tools/pretrain.py photographs more_photographs.zip --out runs/two
start from weights, on two GPUs:
  python tools/pretrain.py photographs --out runs/third --init resnet50.pth \\
      --devices 2
a COCO json and the folder of its images:
  python tools/pretrain.py data/instances_train2017.json:data/train2017 \\
      --out runs/coco
'''


def number_or_auto(text: str) -> object:
    """Return a whole number, or 'auto'."""
    return text if text == 'auto' else int(text)


number_or_auto.__name__ = "number or 'auto'"  # for argparse's message


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add('data', nargs='+', metavar='DATA',
        help='folder of images with its subfolders, a .zip or .tar of '
        'images, or JSON:FOLDER for a COCO json')
    add('--out', required=True, metavar='OUT', help='output folder')
    add('--arch', default='resnet50', metavar='NAME',
        help=f'backbone: {", ".join(ARCHITECTURES)}, or timm/NAME with a name '
        'of timm (default: %(default)s)')
    add('--init', metavar='WEIGHTS', help='file or URL of weights to start '
        'from, of torchvision, timm, MMPretrain or this package, for example '
        'torchvision://resnet50 (default: random weights)')
    add('--init-partial', action='store_true',
        help='accept WEIGHTS of which only a part fits')
    auto = dict(type=number_or_auto, default='auto')
    add('--epochs', metavar='N', **auto, help='passes over all images '
        '(default: auto, as many steps as the paper, at most 800 epochs)')
    add('--batch-size', metavar='N', **auto, help='images of a step on all '
        'devices together (default: auto, at most 64 per device)')
    add('--devices', default='auto', metavar='D', help="number of GPUs, "
        "their indices (0,2; with a comma for one: '1,'), cpu, or cpu:2 for "
        'two processes (default: all GPUs, or the CPU)')
    add('--max-side', type=int, metavar='PIXELS', help='search for objects '
        'in a copy with this longer side: faster, with other boxes (default: '
        'a copy only of images above 2 megapixels)')
    add('--resume', action='store_true', help='go on with the training in '
        'OUT although options or images have changed; not needed to repeat '
        'a command')
    add('--set', nargs='+', action='extend', default=[], dest='overrides',
        metavar='KEY=VALUE', help='values of the config, for example '
        'optim_wrapper.optimizer.lr=0.1; OUT/config.py has all keys but '
        'proposal_rules.min_size')
    args = parser.parse_args()
    for text in args.overrides:
        if not text.partition('=')[0] or '=' not in text:
            parser.error(f"--set: '{text}' is not KEY=VALUE")
    try:
        args.overrides = parse_options(args.overrides)
    except (ValueError, RecursionError, SyntaxError) as e:
        parser.error(f'--set: a value cannot be read ({type(e).__name__}); '
                     'write a list as KEY="[a,b]"')
    return args


def main() -> None:
    """Pre-train; known errors end with a one-line message."""
    args = vars(parse_args())
    end_with_launcher()
    with one_line_errors(ADVICE, (*ALL_ERRORS, TrainingError)):
        pretrain(args.pop('data'), args.pop('out'), **args)


if __name__ == '__main__':
    main()
