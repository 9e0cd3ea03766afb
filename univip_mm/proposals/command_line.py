"""What the commands that make proposal files share."""
import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Union

import numpy as np

from ..io.boxes import ProposalRules
from .proposal_file import ProposalFile


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--min-size``, ``--max-aspect-ratio``, ``--iou-thr`` and
    ``--top-n``."""
    rules = ProposalRules()
    parser.add_argument(
        '--min-size', type=int, default=rules.min_size, metavar='PIXELS',
        help='smallest side of a box (default: %(default)s)')
    parser.add_argument(
        '--max-aspect-ratio', type=float, default=rules.max_aspect_ratio,
        metavar='RATIO',
        help='largest ratio of its sides (default: %(default)s)')
    parser.add_argument(
        '--iou-thr', type=float, default=rules.iou_thr, metavar='IOU',
        help='largest IoU with any box kept before it (default: %(default)s)')
    parser.add_argument(
        '--top-n', type=int, metavar='N',
        help='keep at most N boxes of an image (default: all)')


def rules_of(args: argparse.Namespace) -> ProposalRules:
    """The rules that the command line gives."""
    return ProposalRules(args.min_size, args.max_aspect_ratio, args.iou_thr)


def describe_counts(path: Union[str, os.PathLike], at_least: int = 4) -> str:
    """A line on how many boxes the images of a proposal file have."""
    counts = ProposalFile(path).counts()
    low, median, high = np.quantile(counts, (0.1, 0.5, 0.9))
    few = int((counts < at_least).sum())
    return (f'{counts.sum()} proposals; an image has {median:.0f} (median), '
            f'{low:.0f} to {high:.0f} (10 % to 90 %); {few} of {len(counts)} '
            f'images have fewer than {at_least}')


@contextmanager
def one_line_errors(what_is_kept: str) -> Iterator[None]:
    """Ends the program with one line where something goes wrong that is not a
    fault of the code, or where the user stops it."""
    try:
        yield
    except (ValueError, ImportError, OSError, RuntimeError) as e:
        raise SystemExit(f'error: {e}') from None
    except KeyboardInterrupt:
        print(f'\nstopped; {what_is_kept}', file=sys.stderr)
        raise SystemExit(130) from None
