"""Decode all images of a data set into one file for LoadEncodedImage.

After an interruption, or after images were added, removed or changed, repeat
the command: it decodes only the images whose pixels it does not have.
"""
import argparse
import os
import time

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py
# OpenCV's own messages about damaged images do not name the file.
os.environ.setdefault('OPENCV_LOG_LEVEL', 'OFF')

from univip_mm.io.cache_writer import CacheOutcome, cache_pixels
from univip_mm.io.coco_json import read_coco
from univip_mm.io.urls import check_not_url
from univip_mm.proposals.start_checks import check_folder, check_images
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import ALL_ERRORS, one_line_errors
from univip_mm.utils.text import printable, size_text

SHOWN = 20  # unreadable images

EXAMPLE = '''
example:
  python tools/cache_pixels.py --img-prefix data/coco/train2017 \\
      --ann-file data/coco/annotations/instances_train2017.json \\
      --out /local_disk/train2017.pixels

then, with the same config as before:
  bash tools/dist_train.sh configs/univip_r50_coco.py 8 --cfg-options \\
      train_dataloader.dataset.pipeline.0.cache=/local_disk/train2017.pixels
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add('--ann-file', required=True, help='COCO json that lists the images')
    add('--img-prefix', required=True,
        help='folder of the images, can be in a .zip or .tar')
    add('--out', required=True, help='pixel cache to write; 3 bytes per '
        'pixel, about 100 GB for train2017 of COCO')
    add('--max-gb', type=float, metavar='GB', help='largest size of the '
        'cache, 1e9 bytes: the first images of the json are cached, the '
        'training decodes the others (default: all images)')
    add('--workers', type=int, metavar='N', help='worker processes (default: '
        'one per core)')
    return parser.parse_args()


def main() -> None:
    """Decode the images and report the result."""
    args = parse_args()
    start = time.time()
    with one_line_errors(f"finished images are in '{args.out}.parts': repeat "
                         'the command to resume', ALL_ERRORS):
        for option in ('--ann-file', '--img-prefix', '--out'):
            check_not_url(getattr(args, option[2:].replace('-', '_')), option)
        if args.max_gb is not None and not 0 < args.max_gb < 1e9:
            raise ValueError(f'--max-gb is {args.max_gb}, but must be a '
                             'positive number of gigabytes')
        images = read_coco(args.ann_file)['images']
        check_images(images)
        check_folder(args.img_prefix, images)
        outcome = cache_pixels(
            images, args.img_prefix, args.out,
            None if args.max_gb is None else int(args.max_gb * 1e9),
            args.workers)
    report(args, len(images), outcome, time.time() - start)


def report(args: argparse.Namespace, number: int, outcome: CacheOutcome,
           seconds: float) -> None:
    """Print the numbers of images, the size, and unreadable images."""
    done = f'decoded {outcome.decoded} images in {seconds:.0f} s'
    if outcome.found_before:
        done += f'; {outcome.found_before} were decoded before'
    if outcome.copied:
        done += f'; {outcome.copied} copied from the earlier cache'
    print(done if any(outcome[:3]) else
          'nothing to decode: the images have not changed')
    if outcome.dropped:
        print(f'dropped {outcome.dropped} cached images, which are not in the '
              'json, or exceed --max-gb')
    for name, problem in list(outcome.unreadable.items())[:SHOWN]:
        print(f'not cached: {printable(name)}: {printable(problem)}')
    if outcome.unreadable:
        print(f'not in the cache: {len(outcome.unreadable)} of {number} '
              'images; the training reads their files, and skips those that '
              'are unreadable')
    print(f'pixel cache: {printable(args.out)}, {outcome.total} of {number} '
          f'images ({outcome.total / number:.1%}), '
          f'{size_text(os.path.getsize(args.out))}')


if __name__ == '__main__':
    main()
