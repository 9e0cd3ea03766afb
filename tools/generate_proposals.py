"""Find object proposals in all images of a data set by selective search.

After an interruption, or after files were added, removed or repaired, repeat
the command: it searches only the images without a result.
"""
import argparse
import os
import time
from datetime import timedelta
from pathlib import Path

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py
# OpenCV's own messages about damaged images do not name the file.
os.environ.setdefault('OPENCV_LOG_LEVEL', 'OFF')

from univip_mm.io.coco_json import read_coco
from univip_mm.io.image_folder import list_folder
from univip_mm.io.urls import check_not_url
from univip_mm.proposals import Search, generate_proposals
from univip_mm.proposals.command_line import (
    add_rule_options,
    describe_counts,
    describe_search,
    rules_from_args,
)
from univip_mm.proposals.earlier import keep_ids, path_of_list
from univip_mm.proposals.generate import Outcome
from univip_mm.proposals.result import path_of_unreadable
from univip_mm.proposals.selective_search import METHODS, check_opencv
from univip_mm.proposals.start_checks import check_outputs
from univip_mm.utils.command import make_parser
from univip_mm.utils.distributed import (
    LAUNCHERS,
    broadcast,
    leave,
    rank_and_world_size,
    start_gloo,
)
from univip_mm.utils.errors import ALL_ERRORS, one_line_errors
from univip_mm.utils.processes import end_with_launcher
from univip_mm.utils.text import printable

SHOWN = 20  # unreadable images

EXAMPLE = '''
examples:
  python tools/generate_proposals.py --img-prefix data/coco/train2017 \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --out data/coco/proposals/train2017.npz
a folder of images without a json:
  python tools/generate_proposals.py --img-prefix my_photographs \\
      --out my_proposals/train.npz
two machines with a common disk; RANK is 0 on the first and 1 on the second:
  torchrun --nnodes 2 --node-rank RANK --master-addr HOST_0 \\
      tools/generate_proposals.py OPTIONS (as above)
Slurm, one task per machine:
  srun --nodes 8 --ntasks-per-node 1 --cpus-per-task 64 \\
      python tools/generate_proposals.py --launcher slurm OPTIONS (as above)
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add('--img-prefix', required=True,
        help='folder of the images, can be in a .zip or .tar')
    add('--ann-file', help='COCO json that lists the images (default: list '
        'all images below --img-prefix, and write the list of the readable '
        'images to a json beside OUT)')
    add('--out', required=True, help='proposal file to write, ending in .npz')
    add('--method', choices=METHODS, default='fast', help='mode of selective '
        "search (default: %(default)s, the paper's)")
    add('--max-side', type=int, metavar='PIXELS', help='search in a copy of '
        'the image whose longer side is reduced to PIXELS, e.g. 320: faster, '
        'but with other boxes. Default: images of more than 2 megapixels, or '
        'with a side above 3000 pixels, are searched in a copy of at most 0.3 '
        'megapixels, as 640 x 480; other images without a copy. 100000: no '
        'copies')
    add_rule_options(parser)
    add('--workers', type=int, metavar='N', help='worker processes, per rank '
        'if there is a launcher (default: one per core)')
    add('--launcher', choices=LAUNCHERS,
        default='pytorch' if 'TORCHELASTIC_RUN_ID' in os.environ else 'none',
        help='launcher of the processes; set slurm under srun (torchrun is '
        'detected; default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Search all images and report the result."""
    args = parse_args()
    end_with_launcher()
    start = time.time()
    with one_line_errors(f"finished images are in '{args.out}.parts': repeat "
                         'the command to resume', ALL_ERRORS):
        # A rank may wait long for the slowest rank.
        start_gloo(args.launcher, timedelta(days=30),
                   advice='repeat the command to resume')
        search = Search(args.method, rules_from_args(args), args.top_n,
                        args.max_side)
        for option in ('--img-prefix', '--ann-file', '--out'):
            value = getattr(args, option[2:].replace('-', '_'))
            check_not_url(value or '', option)
        images, ann_file = list_images(args)
        if rank_and_world_size()[0] == 0:
            for line in describe_search(images, search):
                print(line, flush=True)
        outcome = generate_proposals(
            images, args.img_prefix, args.out, search, ann_file.name,
            args.workers, None if args.ann_file else ann_file)
    if rank_and_world_size()[0] == 0:
        report(args, outcome, time.time() - start)


def list_images(args: argparse.Namespace) -> tuple[list[dict], Path]:
    """Return the images and the path of the json that lists them."""
    if args.ann_file is not None:
        return read_coco(args.ann_file)['images'], Path(args.ann_file)
    ann_file = path_of_list(args.out)
    images = None
    if rank_and_world_size()[0] == 0:
        # To list a large folder takes long.
        check_opencv()
        check_outputs(args.out, ann_file)
        images = keep_ids(list_folder(args.img_prefix)['images'], args.out)
        print(f'found {len(images)} images below '
              f'{printable(args.img_prefix)}')
    return broadcast(images), ann_file


def report(args: argparse.Namespace, outcome: Outcome,
           seconds: float) -> None:
    """Print the numbers of images and proposals, and unreadable images."""
    out = Path(args.out)
    print(f'searched {outcome.searched} images in {seconds:.0f} s '
          f'({outcome.searched / seconds:.1f} images/s)', end='')
    print(f'; {outcome.found_before} were searched before'
          if outcome.found_before else '')
    if outcome.reduced:
        print(f'{outcome.reduced} large images were searched in a reduced '
              'copy')
    print(describe_counts(out))
    for name, problem in list(outcome.unreadable.items())[:SHOWN]:
        print(f'not read: {printable(name)}: {printable(problem)}')
    if outcome.unreadable:
        effect = ('have no proposals' if args.ann_file else
                  'are not in the list of images')
        print(f'{len(outcome.unreadable)} images could not be read and '
              f'{effect}; all are in {printable(path_of_unreadable(out))}. '
              'Repair or remove them and repeat the command, which searches '
              'only these images')
    if not args.ann_file:
        print(f'list of images: {printable(path_of_list(out))}')
    print(f'proposals: {printable(out)}')


if __name__ == '__main__':
    main()
    leave()
