"""Export the backbone of a pre-training checkpoint."""
import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Optional

import torch

from ..engine.branches import BRANCHES
from ..io.atomic import atomic_write
from ..version import __version__


def extract_backbone(checkpoint: dict, branch: str = 'online') -> OrderedDict:
    """The backbone's weights, under the names that the backbone has alone.

    Args:
        checkpoint (dict): A checkpoint of UniVIP, or of the host's BYOL.
        branch (str): 'online' or 'target'. Defaults to 'online'.

    Returns:
        OrderedDict: Its state dict.

    Raises:
        ValueError: There is no such branch, or the checkpoint has none, or
            is of another method.
    """
    if branch not in BRANCHES:
        raise ValueError(f"there is no branch '{branch}': choose one of "
                         f'{", ".join(BRANCHES)}')
    prefix = BRANCHES[branch]
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, dict):
        raise ValueError(f'its state_dict is a {type(weights).__name__}, not '
                         'a state dict: give a checkpoint of tools/train.py')
    backbone = OrderedDict((name[len(prefix):], value)
                           for name, value in weights.items()
                           if str(name).startswith(prefix))
    if not backbone:
        found = sorted({str(name).split('.')[0] for name in weights})
        raise ValueError(
            f"it has no '{prefix}*', where UniVIP and BYOL keep the backbone "
            f'of the {branch} branch, but {found[:8]}: give a checkpoint of '
            'tools/train.py')
    if not any(str(name).startswith(BRANCHES['target']) for name in weights):
        raise ValueError(
            f"it has a backbone, but no '{BRANCHES['target']}*', the averaged "
            'one that every pre-training of UniVIP and BYOL has: give a '
            'checkpoint of tools/train.py')
    return backbone


FORMATS = ('mm', 'torchvision')


def save_backbone(backbone: OrderedDict,
                  out: str,
                  source: str,
                  checkpoint: dict,
                  branch: str = 'online',
                  format: str = 'mm') -> None:
    """Write a backbone, with where it comes from: the name and the SHA-256 of
    the checkpoint's file, the branch, the epoch and the iteration.

    Format 'mm' is a dict of ``state_dict`` and ``meta``, for the packages of
    OpenMMLab. 'torchvision' is the state dict itself, which holds the same as
    ``_metadata['']['source']``, where ``load_state_dict`` lets it be.

    Another process never sees a part of the file.

    Args:
        backbone (OrderedDict): What :func:`extract_backbone` gave.
        out (str): File to write; its folder is made.
        source (str): Path of the checkpoint.
        checkpoint (dict): The checkpoint's content.
        branch (str): Which was taken. Defaults to 'online'.
        format (str): 'mm' or 'torchvision'. Defaults to 'mm'.
    """
    meta = checkpoint.get('meta', {})
    with open(source, 'rb') as file:
        sha256 = hashlib.sha256()
        while block := file.read(2**24):
            sha256.update(block)
    origin = dict(
        source=Path(source).name,
        sha256=sha256.hexdigest(),
        branch=branch,
        epoch=meta.get('epoch'),
        iter=meta.get('iter'),
        univip_mm=__version__)
    if format == 'mm':
        content = dict(state_dict=backbone, meta=origin)
    else:
        content = OrderedDict(backbone)
        content._metadata = OrderedDict({'': dict(version=1, source=origin)})
    with atomic_write(out) as file:
        torch.save(content, file)


# The blocks of each stage, and whether they are bottlenecks, which have a
# third convolution.
_DEPTHS = {
    (2, 2, 2, 2, False): 18,
    (3, 4, 6, 3, False): 34,
    (3, 4, 6, 3, True): 50,
    (3, 4, 23, 3, True): 101,
    (3, 8, 36, 3, True): 152,
}


def depth_of(backbone: OrderedDict) -> Optional[int]:
    """Depth of the ResNet that has these weights; None for no ResNet."""
    blocks = [
        len({name.split('.')[1] for name in backbone
             if name.startswith(f'layer{stage}.')}) for stage in range(1, 5)
    ]
    return _DEPTHS.get((*blocks, 'layer1.0.conv3.weight' in backbone))


def check_torchvision(backbone: OrderedDict) -> str:
    """Name of the torchvision ResNet that has exactly these weights, but for
    its classifier.

    Raises:
        ValueError: There is none.
    """
    from torchvision import models
    shapes = {name: value.shape for name, value in backbone.items()}
    for name in ('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152'):
        with torch.device('meta'):
            theirs = getattr(models, name)().state_dict()
        if shapes == {
                key: value.shape
                for key, value in theirs.items() if not key.startswith('fc.')
        }:
            return name
    raise ValueError('no ResNet of torchvision has the layers of this '
                     'backbone: take --format mm')
