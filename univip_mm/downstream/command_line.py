"""Options shared by the commands that read the backbone of a training."""
import argparse

from ..engine.branches import BRANCHES


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``univip_mm.downstream.source.read_source``."""
    parser.add_argument(
        'source', metavar='CHECKPOINT_OR_OUT', help='checkpoint of UniVIP or '
        'BYOL, or the folder of a training, whose latest checkpoint is used')
    add_branch_option(parser)
    parser.add_argument(
        '--config', help='config of the training, for a checkpoint that has '
        'none; the file is executed (default: the text in the checkpoint)')


def add_branch_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--branch``."""
    parser.add_argument(
        '--branch', choices=BRANCHES, default='online', help='online: trained '
        'network; target: its moving average (default: %(default)s)')
