"""Tell and draw what is in a proposal file."""
import argparse
import os
import os.path as osp
from pathlib import Path

import cv2
import numpy as np

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py

from univip_mm.io.boxes import xywh_to_xyxy
from univip_mm.io.coco_json import read_coco
from univip_mm.proposals import ProposalFile
from univip_mm.proposals.command_line import one_line_errors
from univip_mm.proposals.inspect import quantiles, recall
from univip_mm.visualization import (
    draw_image_grid,
    draw_proposal_histograms,
    draw_proposals,
)

EXAMPLE = '''
examples:
  python tools/inspect_proposals.py data/coco/proposals/train2017.npz
with recall and pictures of some images:
  python tools/inspect_proposals.py data/coco/proposals/train2017.npz \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --img-prefix data/coco/train2017
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('proposals', help='proposal file, ending in .npz')
    parser.add_argument(
        '--ann-file',
        help='COCO json: tells the recall of its boxes, where it has some')
    parser.add_argument(
        '--img-prefix',
        help='folder of the images: draws some of them; needs --ann-file')
    parser.add_argument(
        '--num-instances', type=int, default=4, metavar='K',
        help='count the images with fewer boxes than that (default: '
        '%(default)s)')
    parser.add_argument(
        '--show-number', '-n', type=int, default=9, metavar='N',
        help='images to draw (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0,
        help='of the images drawn (default: %(default)s)')
    parser.add_argument(
        '--output-dir', '-o',
        help='folder of the pictures (default: OUT.inspect beside the file)')
    args = parser.parse_args()
    if args.img_prefix and not args.ann_file:
        parser.error('--img-prefix needs --ann-file, which names the images')
    if args.show_number < 1:
        parser.error(f'--show-number is {args.show_number}: it must be at '
                     'least 1')
    return args


def tell(proposals: ProposalFile, num_instances: int) -> np.ndarray:
    """Print how the file was made and what it holds; returns all boxes."""
    for name, value in proposals.meta.items():
        if name == 'unreadable':
            value = f'{len(value)} images'
        elif isinstance(value, dict):
            value = ', '.join(f'{k}={v}' for k, v in value.items())
        print(f'{name:14}{value}')
    counts = proposals.counts()
    boxes = proposals.boxes
    few = int((counts < num_instances).sum())
    print(f'{"images":14}{len(proposals)}')
    print(f'{"boxes":14}{len(boxes)}')
    if len(counts):
        print(f'{"an image has":14}{quantiles(counts)}')
        print(f'{"below K":14}{few} images ({few / len(counts):.1%}) have '
              f'fewer than {num_instances}')
    if len(boxes):
        sides = (boxes[:, 2:] - boxes[:, :2]).astype(float)
        print(f'{"side, pixels":14}{quantiles(np.sqrt(sides.prod(axis=1)))}')
        print(f'{"width/height":14}{quantiles(sides[:, 0] / sides[:, 1])}')
    return boxes


def draw_sheet(proposals: ProposalFile, content: dict, img_prefix: str,
               number: int, seed: int, path: str) -> None:
    """Draw some images with their boxes, and the annotated ones."""
    images = [x for x in content['images'] if x['id'] in proposals]
    picked = np.random.default_rng(seed).permutation(len(images))[:number]
    pictures = []
    for image in (images[i] for i in sorted(picked)):
        pixels = cv2.imread(str(Path(img_prefix) / image['file_name']))
        if pixels is None:
            raise ValueError(f"cannot read the image '{image['file_name']}' "
                             f"below '{img_prefix}'")
        annotated = xywh_to_xyxy([
            x['bbox'] for x in content.get('annotations', [])
            if x['image_id'] == image['id'] and 'bbox' in x
        ])
        boxes = np.asarray(proposals[image['id']], dtype=float)
        pictures.append(draw_proposals(
            pixels[..., ::-1], boxes, annotated,
            f"{osp.basename(image['file_name'])}: {len(boxes)} proposals, "
            f'{len(annotated)} annotated'))
    draw_image_grid(pictures, path)
    print(f'picture: {path} (bold: the first proposals; dashed: annotated)')


def main() -> None:
    args = parse_args()
    with one_line_errors('nothing more to do'):
        proposals = ProposalFile(args.proposals)
        content = read_coco(args.ann_file) if args.ann_file else None
        out = args.output_dir or f'{osp.splitext(args.proposals)[0]}.inspect'
        boxes = tell(proposals, args.num_instances)
        if content is not None and content.get('annotations'):
            number, shares = recall(proposals, content['annotations'])
            print(f'{"recall":14}of {number} annotated boxes: ' + ', '.join(
                f'{share:.3f} at IoU {thr}' for thr, share in shares.items()))
        path = osp.join(out, 'histograms.png')
        draw_proposal_histograms(
            proposals.counts(), boxes, path,
            f'{osp.basename(args.proposals)}: {len(boxes)} boxes of '
            f'{len(proposals)} images')
        print(f'picture: {path}')
        if args.img_prefix:
            draw_sheet(proposals, content, args.img_prefix, args.show_number,
                       args.seed, osp.join(out, 'samples.png'))


if __name__ == '__main__':
    main()
