"""Convert proposals of other projects to a proposal file.

formats:
  orl   ORL's JSON, {"bbox": [[[x, y, w, h], ...] per image]}, in the order
        of the annotation file's images
  coco  COCO results, [{"image_id", "bbox": [x, y, w, h], "score"}, ...],
        sorted by score: the output of most detectors and proposal methods
"""
import argparse
import os
import time
from pathlib import Path

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py

from univip_mm.io.coco_json import read_coco
from univip_mm.io.outputs import check_output_file
from univip_mm.proposals.command_line import (
    add_rule_options,
    describe_counts,
    rules_from_args,
)
from univip_mm.proposals.importers import import_proposals
from univip_mm.proposals.readers import READERS
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import ALL_ERRORS, one_line_errors
from univip_mm.utils.text import printable

EXAMPLE = '''
examples:
  python tools/convert_proposals.py orl train2017_ss_proposals.json \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --out data/coco/proposals/train2017.npz
results of a detector, the 100 best boxes per image:
  python tools/convert_proposals.py coco results.bbox.json --top-n 100 \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --out data/coco/proposals/train2017.npz
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add('format', help='format of the source, see above: '
        + ' or '.join(READERS))
    add('source', help='file to read')
    add('--ann-file', required=True,
        help='COCO json that lists the images, with their sizes')
    add('--out', required=True, help='proposal file to write, ending in .npz')
    add_rule_options(parser)
    add('--workers', type=int, metavar='N',
        help='worker processes that filter (default: one per core)')
    return parser.parse_args()


def main() -> None:
    """Convert the proposals and report the numbers of boxes."""
    args = parse_args()
    start = time.time()
    with one_line_errors('nothing was written', ALL_ERRORS):
        check_output_file(args.out, '--out')
        images = read_coco(args.ann_file)['images']
        counts = import_proposals(
            args.format, args.source, images, args.out,
            rules_from_args(args), args.top_n, Path(args.ann_file).name,
            args.workers)
    print(f'read {counts.read} boxes of {len(images)} images in '
          f'{time.time() - start:.0f} s')
    print(f'dropped: {counts.not_finite} not finite, {counts.empty} empty, '
          f'{counts.outside} outside of the image; clipped at its border: '
          f'{counts.clipped}')
    print(describe_counts(args.out))
    print(f'proposals: {printable(args.out)}')


if __name__ == '__main__':
    main()
