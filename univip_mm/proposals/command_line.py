"""Options and output shared by the commands that make proposal files."""
import argparse
from collections.abc import Sequence

import numpy as np

from ..io.atomic import PathLike
from ..io.boxes import ProposalRules
from .proposal_file import ProposalFile
from .search import Search


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`ProposalRules`, and ``--top-n``."""
    add, rules = parser.add_argument, ProposalRules()
    add('--min-size', type=int, default=rules.min_size, metavar='PIXELS',
        help='smallest side of a box (default: %(default)s)')
    add('--max-aspect-ratio', type=float, default=rules.max_aspect_ratio,
        metavar='RATIO', help='largest ratio of the longer side to the '
        'shorter side (default: %(default)s)')
    add('--iou-thr', type=float, default=rules.iou_thr, metavar='IOU',
        help='largest IoU with any box kept before (default: %(default)s)')
    add('--top-n', type=int, metavar='N', help='largest number of boxes per '
        'image, e.g. 100 (default: no limit)')


def rules_from_args(args: argparse.Namespace) -> ProposalRules:
    """Return the rules set by the options of :func:`add_rule_options`."""
    return ProposalRules(args.min_size, args.max_aspect_ratio, args.iou_thr)


def describe_search(images: Sequence[dict], search: Search) -> list[str]:
    """Return lines on the large images, and on the time that an image takes.

    ``images`` are those of a COCO json, with ``width`` and ``height`` if they
    are known.
    """
    lines = []
    if large := search.count_large(images):
        lines.append(f'{large} images are large (more than 2 megapixels, or a '
                     'side above 3000 pixels) and are searched in a copy of '
                     '0.3 megapixels: --max-side changes this')
    lines.append('an image without a result takes about 2 s (0.3 megapixels) '
                 'to 40 s (2 megapixels) on one core')
    return lines


def describe_counts(path: PathLike) -> str:
    """Return a line about the number of boxes per image in a proposal file."""
    counts = ProposalFile(path).counts()
    low, median, high = np.quantile(counts, (0.1, 0.5, 0.9))
    return (f'{counts.sum()} proposals; an image has {median:.0f} (median), '
            f'{low:.0f} to {high:.0f} (10 % to 90 %); {(counts < 4).sum()} of '
            f'{len(counts)} images have fewer than 4')
