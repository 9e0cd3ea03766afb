"""Checkpoints: loaded without executing anything in them, and the backbone
taken out of one."""
import hashlib
import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.runner import CheckpointLoader

from .. import safe_pickle
from ..version import __version__


def load_checkpoints_safely() -> None:
    """From now on, in this process, MMEngine's Runner loads local files by
    :mod:`univip_mm.safe_pickle`: nothing in them is executed, and what
    MMEngine's log needs is admitted, so that a run can be resumed."""
    CheckpointLoader.register_scheme('', _load_local, force=True)


def _load_local(filename: str, map_location: Any = None) -> Any:
    """In place of MMEngine's loader of local files."""
    return safe_pickle.load(os.path.expanduser(filename), map_location)


def load_checkpoint(path: str) -> dict:
    """A checkpoint's content on the CPU; nothing in it is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, is cut short, or holds an object
            of a type that no checkpoint of ours needs.
    """
    try:
        content = safe_pickle.load(path, 'cpu')
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint '{path}'") from None
    except Exception as e:
        raise ValueError(describe_refusal(path, e)) from None
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, but a "
                         'checkpoint is a dict')
    return content


def describe_refusal(path: str, error: Exception) -> str:
    """In one line why PyTorch did not load a checkpoint."""
    return (f"'{path}' is not a checkpoint, is cut short, or holds what is "
            f'not safe to load: {_reason(error)}')


def is_whole(path: str) -> bool:
    """Whether a file is not cut short: PyTorch's checkpoints are zip archives,
    whose directory stands at their end. Of other formats only an empty file
    is known not to be whole."""
    if zipfile.is_zipfile(path):
        return True
    with open(path, 'rb') as file:
        start = file.read(2)
    return start not in (b'', b'PK')


def latest_checkpoint(work_dir: str) -> tuple[Optional[str], list[str]]:
    """The latest whole checkpoint of a training, and those passed over.

    The one that ``last_checkpoint`` names comes first, then all others,
    the newest first.

    Returns:
        tuple[Optional[str], list[str]]: Its path, or None where there is
        none; and the paths of those that are cut short or gone.
    """
    folder = Path(work_dir)
    found = sorted(folder.glob('*.pth'), key=lambda x: x.stat().st_mtime,
                   reverse=True)
    candidates = [str(path) for path in found]
    note = folder / 'last_checkpoint'
    named = note.read_text().strip() if note.is_file() else ''
    if named:
        candidates.insert(0, named)
    passed_over = []
    for path in dict.fromkeys(candidates):
        if os.path.isfile(path) and is_whole(path):
            return path, passed_over
        passed_over.append(path)
    return None, passed_over


# Where a branch of BYOL, and so of UniVIP, keeps its backbone: the target is
# a Sequential of backbone and projector within the averaged model.
BRANCHES = dict(online='backbone.', target='target_net.module.0.')


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
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    part = f'{out}.{os.getpid()}'
    torch.save(content, part)
    os.replace(part, out)


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


def _reason(error: Exception) -> str:
    """The sentence that says why, out of PyTorch's page of advice."""
    text = str(error) or type(error).__name__
    found = re.search(
        r'((?:Trying to load u|U)nsupported .*?)(?: was not|\. |\.?\n|$)',
        text)
    return found.group(1) if found else text.split('. ')[0].split('\n')[0]
