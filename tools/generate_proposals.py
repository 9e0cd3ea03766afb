"""Find proposals by selective search in every image of a data set."""
import argparse
import json
import time
from pathlib import Path

import numpy as np

from univip_mm.boxes import ProposalRules
from univip_mm.coco import list_folder, read_coco
from univip_mm.proposals import ProposalFile, Search, generate_proposals
from univip_mm.proposals.selective_search import METHODS

EXAMPLE = '''
examples:
  python tools/generate_proposals.py --img-prefix data/coco/train2017 \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --out data/coco/proposals/train2017.npz
  python tools/generate_proposals.py --img-prefix my_photographs \\
      --out my_proposals/train.npz
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
    rules = ProposalRules()
    parser.add_argument(
        '--min-size',
        type=int,
        default=rules.min_size,
        metavar='PIXELS',
        help='smallest side of a box (default: %(default)s)')
    parser.add_argument(
        '--max-aspect-ratio',
        type=float,
        default=rules.max_aspect_ratio,
        metavar='RATIO',
        help='largest ratio of its sides (default: %(default)s)')
    parser.add_argument(
        '--iou-thr',
        type=float,
        default=rules.iou_thr,
        metavar='IOU',
        help='largest IoU with any box kept before it (default: %(default)s)')
    parser.add_argument(
        '--top-n',
        type=int,
        metavar='N',
        help='keep at most N boxes of an image (default: all)')
    parser.add_argument(
        '--workers',
        type=int,
        metavar='N',
        help='processes (default: one for each core)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.time()
    try:
        search = Search(
            args.method,
            ProposalRules(args.min_size, args.max_aspect_ratio, args.iou_thr),
            args.top_n)
        images, ann_file = list_images(args)
        outcome = generate_proposals(
            images,
            args.img_prefix,
            args.out,
            search,
            source=ann_file.name,
            workers=args.workers)
    except (ValueError, FileNotFoundError, ImportError) as e:
        raise SystemExit(f'error: {e}') from None
    counts = ProposalFile(args.out).counts()
    seconds = time.time() - start
    print(f'{len(images)} images in {seconds:.0f} s '
          f'({len(images) / seconds:.1f} images/s)')
    low, median, high = np.quantile(counts, (0.1, 0.5, 0.9))
    print(f'{counts.sum()} proposals; an image has {median:.0f} (median), '
          f'{low:.0f} to {high:.0f} (10 % to 90 %); {(counts < 4).sum()} '
          'images have fewer than 4')
    for name, problem in outcome.unreadable.items():
        print(f'not read: {name}: {problem}')
    if outcome.unreadable:
        print(f'{len(outcome.unreadable)} images could not be read; they '
              'have no proposals')
    print(f'proposals: {args.out}')


def list_images(args: argparse.Namespace) -> tuple:
    """The images, and the json that lists them."""
    if args.ann_file is not None:
        return read_coco(args.ann_file)['images'], Path(args.ann_file)
    content = list_folder(args.img_prefix)
    ann_file = Path(args.out).with_suffix('.images.json')
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    ann_file.write_text(json.dumps(content))
    print(f"listed {len(content['images'])} images in {ann_file}")
    return content['images'], ann_file


if __name__ == '__main__':
    main()
