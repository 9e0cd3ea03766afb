"""Options and output shared by the commands that make proposal files."""
import argparse

import numpy as np

from ..io.atomic import PathLike
from ..io.boxes import ProposalRules
from .proposal_file import ProposalFile


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


def describe_counts(path: PathLike) -> str:
    """Return a line about the number of boxes per image in a proposal file."""
    counts = ProposalFile(path).counts()
    low, median, high = np.quantile(counts, (0.1, 0.5, 0.9))
    return (f'{counts.sum()} proposals; an image has {median:.0f} (median), '
            f'{low:.0f} to {high:.0f} (10 % to 90 %); {(counts < 4).sum()} of '
            f'{len(counts)} images have fewer than 4')
