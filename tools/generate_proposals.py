"""Find object proposals in all images of a data set by selective search.

After an interruption, repeat the command to resume the search.
"""
import argparse
import json
import os
import time
from datetime import timedelta
from pathlib import Path

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py

from univip_mm.io.atomic import atomic_write
from univip_mm.io.coco_json import read_coco
from univip_mm.io.image_folder import list_folder
from univip_mm.proposals import Search, generate_proposals
from univip_mm.proposals.command_line import (
    add_rule_options,
    describe_counts,
    rules_from_args,
)
from univip_mm.proposals.generate import Outcome
from univip_mm.proposals.selective_search import METHODS
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
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--img-prefix', required=True, help='folder of the images')
    add('--ann-file', help='COCO json that lists the images (default: list '
        'all images below --img-prefix, and write the list to a json beside '
        'OUT)')
    add('--out', required=True, help='proposal file to write, ending in .npz')
    add('--method', choices=METHODS, default='fast', help='mode of selective '
        "search (default: %(default)s, the paper's)")
    add('--max-side', type=int, metavar='PIXELS', help='search in a copy of '
        'the image whose longer side is reduced to PIXELS, e.g. 320: faster, '
        'but with other boxes (see docs/proposals.md; default: no copy)')
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
        images, ann_file = list_images(args)
        outcome = generate_proposals(images, args.img_prefix, args.out,
                                     search, ann_file.name, args.workers)
    if rank_and_world_size()[0] == 0:
        report(args.out, outcome, time.time() - start)


def report(out: str, outcome: Outcome, seconds: float) -> None:
    """Print the numbers of images and proposals, and unreadable images."""
    print(f'searched {outcome.searched} images in {seconds:.0f} s '
          f'({outcome.searched / seconds:.1f} images/s)', end='')
    print(f'; {outcome.found_before} were searched before'
          if outcome.found_before else '')
    print(describe_counts(out))
    for name, problem in outcome.unreadable.items():
        print(f'not read: {printable(name)}: {printable(problem)}')
    if outcome.unreadable:
        print(f'{len(outcome.unreadable)} images could not be read and have '
              'no proposals: repair them and repeat the command, which '
              'searches only these images')
    print(f'proposals: {printable(out)}')


def list_images(args: argparse.Namespace) -> tuple[list[dict], Path]:
    """Return the images and the path of the json that lists them."""
    if args.ann_file is not None:
        return read_coco(args.ann_file)['images'], Path(args.ann_file)
    ann_file = Path(args.out).with_suffix('.images.json')
    content = None
    if rank_and_world_size()[0] == 0:
        content = list_folder(args.img_prefix)
        with atomic_write(ann_file, 'w') as file:
            json.dump(content, file)
        print(f"listed {len(content['images'])} images in "
              f'{printable(ann_file)}')
    return broadcast(content)['images'], ann_file


if __name__ == '__main__':
    main()
    leave()
