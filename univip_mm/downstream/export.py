"""Export of the backbone from a pre-training checkpoint."""
import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import Optional

import torch

from ..engine.branches import BRANCHES
from ..engine.checkpoint import weights_of
from ..io.atomic import atomic_write
from ..utils.text import printable
from ..version import __version__

# Depth by the number of blocks per stage. Bottleneck blocks (last item) have a
# third convolution.
_DEPTHS = {(2, 2, 2, 2, False): 18, (3, 4, 6, 3, False): 34,
           (3, 4, 6, 3, True): 50, (3, 4, 23, 3, True): 101,
           (3, 8, 36, 3, True): 152}


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


def save_backbone(backbone: OrderedDict, out: str, source: str,
                  checkpoint: dict, branch: str = 'online',
                  format: str = 'mm') -> None:
    """Write a backbone and its origin atomically.

    The origin has the file name and the SHA-256 of the checkpoint, the branch,
    the epoch, the iteration and the version of this package. Format 'mm', for
    the OpenMMLab packages, is a dict with ``state_dict`` and ``meta`` (the
    origin). Format 'torchvision' is a plain state dict with the origin in
    ``_metadata['']['source']``, which ``load_state_dict`` ignores.

    ``checkpoint`` is the content of the file ``source``.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    origin = dict(
        source=Path(source).name, sha256=_sha256(source), branch=branch,
        epoch=meta.get('epoch'), iter=meta.get('iter'), univip_mm=__version__)
    if format == 'mm':
        content = dict(state_dict=backbone, meta=origin)
    else:
        content = OrderedDict(backbone)
        content._metadata = OrderedDict({'': dict(version=1, source=origin)})
    with atomic_write(out) as file:
        torch.save(content, file)


def _sha256(path: str) -> str:
    sha256 = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**24):
            sha256.update(block)
    return sha256.hexdigest()


def resnet_depth(backbone: OrderedDict) -> Optional[int]:
    """Return the depth of a ResNet state dict; None for other networks."""
    blocks = [len({name.split('.')[1] for name in backbone
                   if name.startswith(f'layer{stage}.')})
              for stage in range(1, 5)]
    return _DEPTHS.get((*blocks, 'layer1.0.conv3.weight' in backbone))


def match_torchvision(backbone: OrderedDict) -> str:
    """Return the name of the torchvision ResNet with these weights, except fc.

    Raises:
        ValueError: No ResNet of torchvision matches exactly.
    """
    from torchvision import models
    name = f'resnet{resnet_depth(backbone)}'
    if hasattr(models, name):
        with torch.device('meta'):
            expected = weight_shapes(getattr(models, name)().state_dict())
        if expected == {key: x.shape for key, x in backbone.items()}:
            return name
    raise ValueError('no ResNet of torchvision has the layers of this '
                     'backbone: use --format mm')


def weight_shapes(backbone: OrderedDict) -> dict[str, torch.Size]:
    """Return the shapes of the weights, without the classifier ``fc``."""
    return {name: value.shape for name, value in backbone.items()
            if not name.startswith('fc.')}
