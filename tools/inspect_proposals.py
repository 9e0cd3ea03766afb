"""Print and draw statistics of a proposal file."""
import argparse
import os
import os.path as osp

import numpy as np

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py

from univip_mm.io.boxes import xywh_to_xyxy
from univip_mm.io.coco_annotations import read_annotations
from univip_mm.io.coco_json import image_path, read_coco
from univip_mm.io.images import UnreadableImageError, read_image
from univip_mm.io.outputs import check_output_folder
from univip_mm.proposals import ProposalFile
from univip_mm.proposals.inspect import describe, recall
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import ALL_ERRORS, one_line_errors
from univip_mm.utils.text import printable
from univip_mm.visualization import (
    draw_image_grid,
    draw_proposal_histograms,
    draw_proposals,
)

EXAMPLE = '''
examples:
  python tools/inspect_proposals.py data/coco/proposals/train2017.npz
with recall of the annotated boxes, and pictures of some images:
  python tools/inspect_proposals.py data/coco/proposals/train2017.npz \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --img-prefix data/coco/train2017
'''


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add('proposals', help='proposal file, ending in .npz')
    add('--ann-file',
        help='COCO json: report the recall of its annotated boxes, if any')
    add('--img-prefix',
        help='folder of the images, can be in a .zip or .tar: draw some '
        'images; needs --ann-file')
    add('--num-instances', type=int, default=4, metavar='K',
        help='count the images with fewer than K boxes (default: %(default)s)')
    add('--show-number', '-n', type=int, default=9, metavar='N',
        help='number of images to draw (default: %(default)s)')
    add('--seed', type=int, default=0,
        help='seed that selects the images to draw (default: %(default)s)')
    add('--output-dir', '-o', help='folder of the pictures (default: the path '
        'of the proposal file with .inspect instead of .npz)')
    args = parser.parse_args()
    if args.img_prefix and not args.ann_file:
        parser.error('--img-prefix needs --ann-file, which lists the images')
    if args.show_number < 1:
        parser.error(f'--show-number is {args.show_number}: set at least 1')
    return args


def draw_sheet(proposals: ProposalFile, images: list, annotations: list,
               img_prefix: str, number: int, seed: int, path: str) -> None:
    """Draw random readable images with proposals and annotated boxes."""
    unreadable = set(proposals.meta.get('unreadable', []))
    images = [x for x in images
              if x['id'] in proposals and x['id'] not in unreadable]
    picked = np.random.default_rng(seed).permutation(len(images))[:number]
    pictures = []
    for image in (images[i] for i in sorted(picked)):
        try:
            pixels = read_image(image_path(img_prefix, image['file_name']))
        except (OSError, UnreadableImageError) as e:
            raise ValueError(f"cannot read the image '{image['file_name']}' "
                             f"below '{img_prefix}': {e}") from None
        annotated = xywh_to_xyxy([
            x['bbox'] for x in annotations if x['image_id'] == image['id']])
        boxes = np.asarray(proposals[image['id']], dtype=float)
        pictures.append(draw_proposals(
            pixels[..., ::-1], boxes, annotated,
            f"{osp.basename(image['file_name'])}: {len(boxes)} proposals, "
            f'{len(annotated)} annotated'))
    draw_image_grid(pictures, path)
    print(f'picture: {printable(path)} (bold: the first proposals; dashed: '
          'annotated)')


def main() -> None:
    """Print the statistics and the recall, then draw."""
    args = parse_args()
    with one_line_errors('pictures may be missing', ALL_ERRORS):
        proposals = ProposalFile(args.proposals)
        images, annotations = [], []
        if args.ann_file:
            content = read_coco(args.ann_file)
            images = content['images']
            annotations = read_annotations(content, args.ann_file, boxes=True)
        out = args.output_dir or f'{osp.splitext(args.proposals)[0]}.inspect'
        check_output_folder(out, '--output-dir')
        print(*describe(proposals, args.num_instances), sep='\n')
        if annotations:
            number, shares = recall(proposals, annotations)
            print(f'{"recall":14}of {number} annotated boxes: ' + ', '.join(
                f'{share:.3f} at IoU {thr}' for thr, share in shares.items()))
        path = osp.join(out, 'histograms.png')
        draw_proposal_histograms(
            proposals.counts(), proposals.boxes, path,
            f'{osp.basename(args.proposals)}: {len(proposals.boxes)} boxes of '
            f'{len(proposals)} images')
        print(f'picture: {printable(path)}')
        if args.img_prefix:
            draw_sheet(proposals, images, annotations, args.img_prefix,
                       args.show_number, args.seed,
                       osp.join(out, 'samples.png'))


if __name__ == '__main__':
    main()
