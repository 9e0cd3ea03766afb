"""Extraction of the backbone from a pre-training checkpoint."""
from collections import OrderedDict

import torch

from ..engine.branches import BRANCHES
from ..engine.checkpoint import weights_of
from ..utils.text import printable


def extract_backbone(checkpoint: dict, branch: str = 'online') -> OrderedDict:
    """Return the state dict of a backbone, without the prefix of the branch.

    Args:
        checkpoint (dict): Checkpoint of UniVIP, or of the host's BYOL.
        branch (str): 'online' or 'target'. Defaults to 'online'.

    Raises:
        ValueError: The branch is unknown, or the checkpoint has no backbone or
            is from another method.
    """
    if branch not in BRANCHES:
        raise ValueError(f"unknown branch '{branch}': choose one of "
                         f'{", ".join(BRANCHES)}')
    prefix = BRANCHES[branch]
    weights = weights_of(checkpoint)
    backbone = OrderedDict((name[len(prefix):], value)
                           for name, value in weights.items()
                           if name.startswith(prefix))
    if not backbone:
        found = sorted({name.split('.')[0] for name in weights})
        raise ValueError(
            f"the checkpoint has no '{prefix}*', where UniVIP and BYOL store "
            f'the backbone of the {branch} branch, but {found[:8]}: use a '
            'checkpoint of tools/train.py')
    if not any(name.startswith(BRANCHES['target']) for name in weights):
        raise ValueError(
            f"the checkpoint has a backbone, but no '{BRANCHES['target']}*', "
            'the averaged backbone in every checkpoint of UniVIP and BYOL: '
            'use a checkpoint of tools/train.py')
    check_tensors(backbone)
    return backbone


def check_tensors(weights: dict) -> None:
    """Raise ValueError if a value of a state dict is not a tensor."""
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"the weight '{printable(name)}' is a "
                f'{type(value).__name__}, not a tensor: use a checkpoint of '
                'tools/train.py')
