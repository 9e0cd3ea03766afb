"""Find proposals by selective search in every image of a data set.

Killed at any moment, the same command goes on where it was.
"""
import argparse
import json
import os
import time
from datetime import timedelta
from pathlib import Path

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py

from univip_mm.io.coco_json import list_folder, read_coco
from univip_mm.proposals import Search, generate_proposals
from univip_mm.proposals.command_line import (
    add_rule_options,
    describe_counts,
    one_line_errors,
    rules_of,
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

EXAMPLE = '''
examples:
  python tools/generate_proposals.py --img-prefix data/coco/train2017 \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --out data/coco/proposals/train2017.npz
a folder of images without a json:
  python tools/generate_proposals.py --img-prefix my_photographs \\
      --out my_proposals/train.npz
on two machines with a common disk, on each of them, with RANK 0 and 1:
  torchrun --nnodes 2 --node-rank RANK --master-addr HOST_0 \\
      tools/generate_proposals.py ... the options as above
under Slurm, one task a machine:
  srun --nodes 8 --ntasks-per-node 1 --cpus-per-task 64 \\
      python tools/generate_proposals.py --launcher slurm ... as above
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--img-prefix', required=True, help='folder of the images')
    parser.add_argument(
        '--ann-file',
        help='COCO json that lists the images; left out, the images below '
        '--img-prefix are listed, in a json written beside OUT')
    parser.add_argument(
        '--out', required=True, help='proposal file to write, ending in .npz')
    parser.add_argument(
        '--method',
        choices=METHODS,
        default='fast',
        help='mode of selective search (default: %(default)s, the paper\'s)')
    parser.add_argument(
        '--max-side',
        type=int,
        metavar='PIXELS',
        help='search on a copy of the image whose longer side is reduced to '
        'that: faster, with other boxes; docs/proposals.md tells how much '
        '(default: the image itself)')
    add_rule_options(parser)
    parser.add_argument(
        '--workers',
        type=int,
        metavar='N',
        help='processes of this one, or of each rank (default: one for each '
        'core)')
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='pytorch' if 'TORCHELASTIC_RUN_ID' in os.environ else 'none',
        help='who started the processes that share the images; torchrun is '
        'seen without it, under srun give slurm')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.time()
    with one_line_errors(f"what was found is in '{args.out}.parts': the same "
                         'command goes on from there'):
        # A rank may wait long for the slowest one.
        start_gloo(args.launcher, timedelta(days=30))
        search = Search(args.method, rules_of(args), args.top_n, args.max_side)
        images, ann_file = list_images(args)
        outcome = generate_proposals(
            images,
            args.img_prefix,
            args.out,
            search,
            source=ann_file.name,
            workers=args.workers)
    if rank_and_world_size()[0] == 0:
        report(args.out, outcome, time.time() - start)


def report(out: str, outcome: Outcome, seconds: float) -> None:
    """What was done, what could not be read, and what is in the file."""
    print(f'searched {outcome.searched} images in {seconds:.0f} s '
          f'({outcome.searched / seconds:.1f} images/s)', end='')
    print(f'; {outcome.found_before} had been before'
          if outcome.found_before else '')
    print(describe_counts(out))
    for name, problem in outcome.unreadable.items():
        print(f'not read: {name}: {problem}')
    if outcome.unreadable:
        print(f'{len(outcome.unreadable)} images could not be read and have '
              'no proposals: mend them and repeat the command, which searches '
              'these alone')
    print(f'proposals: {out}')


def list_images(args: argparse.Namespace) -> tuple:
    """The images, and the json that lists them."""
    if args.ann_file is not None:
        return read_coco(args.ann_file)['images'], Path(args.ann_file)
    ann_file = Path(args.out).with_suffix('.images.json')
    content = None
    if rank_and_world_size()[0] == 0:
        content = list_folder(args.img_prefix)
        ann_file.parent.mkdir(parents=True, exist_ok=True)
        ann_file.write_text(json.dumps(content))
        print(f"listed {len(content['images'])} images in {ann_file}")
    return broadcast(content)['images'], ann_file


if __name__ == '__main__':
    main()
    leave()
