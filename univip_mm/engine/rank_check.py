"""Checks that all ranks (processes of a training) do the same work.

Ranks on several machines can have other files, packages or options. Without
these checks, such a training runs to its end with wrong weights.
"""
import hashlib
import json
import os
import platform
import socket
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, NoReturn, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
)
from mmengine.runner import Runner
from torch.distributed.optim import ZeroRedundancyOptimizer

from ..datasets.wrappers import leaves
from ..io.images import UnreadableImageError, read_bytes
from ..utils.distributed import leave
from ..utils.errors import USER_ERRORS
from ..utils.processes import is_first_of_node
from ..utils.unwrap import unwrap_model
from .hooks.iter_seed_hook import common_seed

PACKAGES = ('torch', 'torchvision', 'numpy', 'cv2', 'simplejpeg', 'mmengine',
            'mmcv', 'mmpretrain', 'mmselfsup')
# Images whose content is compared; of the others only the size.
SAMPLED_IMAGES = 64
# Image files whose size is compared; of larger data sets, every second file
# or fewer. On a slow disk, each of them can take a millisecond.
MAX_FILES = 200_000
CURES = {
    'config.load_from': 'the nodes do not see the same checkpoints: use a '
    'shared work dir, or copy the checkpoint to each node',
    'config': 'start all nodes with the same config and options',
    'version': 'install the same packages on all nodes',
    'code': 'use the same commit of univip_mm on all nodes',
    'data': 'copy the annotation file and the proposal file to all nodes',
    'resume': 'give all nodes the same checkpoint: use a shared work dir, or '
    'copy the checkpoint'}


class RanksDifferError(ValueError):
    """Error of ranks that differ, raised on all ranks."""


@contextmanager
def errors_on_all_ranks(
        join: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise an error of any rank on all ranks, so that no rank waits.

    The block must not communicate. ``join`` starts the process group, if it
    is not started yet; it is called in any case. Only the first rank of each
    node reports the error; the others exit with status 1.

    Raises:
        Exception: The error of this rank, if it is not an error of a user.
        ValueError: The error of the first rank that has one.
        SystemExit: The same, on the other ranks of a node.
    """
    error: Optional[Exception] = None
    try:
        yield
    except Exception as e:
        error = e
    try:
        join()
    except USER_ERRORS as e:
        if not is_first_of_node():
            raise SystemExit(1) from None
        raise (error or e) from None
    is_users = error is None or isinstance(error, USER_ERRORS)
    own = None if error is None else str(error) if is_users else (
        f'{type(error).__name__}: {error}')
    found = {rank: (host, text) for rank, (host, text) in enumerate(
        all_gather_object((socket.gethostname(), own))) if text is not None}
    if not found:
        return
    if error is not None and not is_users:
        leave()
        raise error  # with its traceback
    if error is None or len(found) < get_world_size():
        rank, (host, text) = next(iter(found.items()))
        error = ValueError(f'on rank {rank} ({host}): {text}')
    _stop(error)


def check_config_agrees(cfg: Config) -> None:
    """Raise RanksDifferError unless all ranks have this config and code.

    Compared are all values of the config, the versions of Python and of the
    packages in use, and the source code of univip_mm.
    """
    facts = {f'config.{key}': value
             for key, value in flatten(cfg.to_dict(), '')}
    facts['version.python'] = '.'.join(platform.python_version_tuple()[:2])
    facts['version.cuda'] = str(torch.version.cuda)
    for name in PACKAGES:
        facts[f'version.{name}'] = getattr(
            sys.modules.get(name), '__version__', 'none')
    facts['code.univip_mm'] = _digest_of_code()
    check_same_facts(facts)


def check_data_agrees(runner: Runner) -> None:
    """Raise RanksDifferError unless all ranks have the same training data.

    Compared are the number of iterations, the list of images and their order,
    the proposals, the size of each image file, and the content of
    :data:`SAMPLED_IMAGES` image files. The first rank of a node reads the
    files for the node.
    """
    if get_world_size() == 1:
        return
    loader = runner.train_dataloader
    infos = image_infos(loader.dataset)
    paths = [str(info.get('img_path')) for info in infos]
    facts = {'data.number of images': len(loader.dataset),
             'data.max_iters': runner.max_iters,
             'data.list of images': digest_of(
                 [(path, info.get('img_id'), info.get('gt_label'))
                  for path, info in zip(paths, infos)])}
    files = [file for dataset in leaves(loader.dataset)
             for file in getattr(dataset, 'proposals', ())]
    for i, file in enumerate(files):
        facts[f'data.proposals {i}'] = file.digest()
    check_same_facts(facts)
    _check_same_files(paths)


def check_start_agrees(runner: Runner) -> None:
    """Raise RanksDifferError unless all ranks start from the same state.

    Compared are the seed, the iteration, the weights, the state of the
    optimizer, and the learning rates.
    """
    if get_world_size() == 1:
        return
    rates = runner.optim_wrapper.get_lr()
    facts = {'resume.seed': common_seed(runner),
             'resume.iteration': runner.iter,
             'resume.learning rates': sorted({*sum(rates.values(), [])}),
             'resume.schedules': _digest_of_tensors(
                 _state_of(runner.param_schedulers))}
    facts.update(_facts_of_weights(runner.model))
    optimizer = runner.optim_wrapper.optimizer
    if 'resume.weights' in facts and not isinstance(
            optimizer, ZeroRedundancyOptimizer):  # a part on each rank
        facts['resume.optimizer'] = _digest_of_tensors(
            runner.optim_wrapper.state_dict())
    check_same_facts(facts)


def check_weights_agree(model: torch.nn.Module, buffers: bool = True) -> None:
    """Raise RanksDifferError unless all ranks have the same weights.

    Without ``buffers``, the statistics of normalization layers may differ.
    """
    if get_world_size() > 1:
        check_same_facts(_facts_of_weights(model, buffers))


def _facts_of_weights(model: torch.nn.Module,
                      buffers: bool = True) -> dict[str, str]:
    if not isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return {}  # other wrappers give each rank a part of the weights
    model = unwrap_model(model)
    weights = model.state_dict() if buffers else dict(model.named_parameters())
    return {'resume.weights': _digest_of_tensors(weights)}


def check_same_facts(facts: dict[str, Any]) -> None:
    """Raise RanksDifferError if the facts of the ranks are not equal.

    A name such as ``config.model.type`` starts with a key of :data:`CURES`.
    Only a digest is exchanged, unless the facts differ.
    """
    texts = {name: str(value) for name, value in facts.items()}
    if len(set(all_gather_object(digest_of(sorted(texts.items()))))) == 1:
        return
    (host, reference), *others = all_gather_object(
        (socket.gethostname(), texts))
    rank, other_host, other = next(
        (rank, *found) for rank, found in enumerate(others, 1)
        if found[1] != reference)
    names = [name for name in {**reference, **other}
             if reference.get(name) != other.get(name)]
    name = names[0]
    cure = CURES.get(name) or CURES[name.split('.')[0]]
    more = f' (and {len(names) - 1} other values)' if names[1:] else ''
    _stop(RanksDifferError(
        f'the ranks differ in {name}: {other.get(name, "missing")} on rank '
        f'{rank} ({other_host}), {reference.get(name, "missing")} on rank 0 '
        f'({host}){more}: {cure}'))


def _stop(error: Exception) -> NoReturn:
    """Raise the error on the first rank of a node, and exit on the others.

    All ranks call this function, so no rank waits for another.
    """
    leave()
    if not is_first_of_node():
        raise SystemExit(1)
    raise error


def _check_same_files(paths: list[str]) -> None:
    """Compare the image files of the nodes, and name the first difference."""
    paths = paths[::1 + len(paths) // MAX_FILES]
    own = _describe_files(paths) if is_first_of_node() else None
    digests = all_gather_object(
        None if own is None else hashlib.sha256(own).hexdigest())
    if len(set(digests) - {None}) == 1:
        return
    shared = [own if get_rank() == 0 else None]
    broadcast_object_list(shared)
    different = [] if own is None else (own != shared[0]).any(1).nonzero()[0]
    text = None
    if len(different):
        i = different[0]
        text = (f"the ranks differ in {len(different)} of {len(paths)} image "
                f"files: '{paths[i]}' {_describe(own[i])} on rank "
                f'{get_rank()} ({socket.gethostname()}) and '
                f'{_describe(shared[0][i])} on rank 0: copy the images again')
    _stop(RanksDifferError(next(filter(None, all_gather_object(text)))))


def _describe_files(paths: list[str]) -> np.ndarray:
    """Return the size and, of a sample, the checksum of files, (N, 2) int64.

    The size is -1 for a missing file.
    """
    rows = np.zeros((len(paths), 2), dtype=np.int64)
    step = -(-len(paths) // SAMPLED_IMAGES)
    for i, path in enumerate(paths):
        try:
            status = os.stat(path)
            rows[i, 0] = status.st_size
            if i % step == 0 and stat.S_ISREG(status.st_mode):
                rows[i, 1] = zlib.crc32(read_bytes(path))
        except UnreadableImageError:
            pass  # too large to be used
        except (OSError, ValueError):  # missing, or a URL
            rows[i, 0] = -1
    return rows


def _describe(row: np.ndarray) -> str:
    size, checksum = row.tolist()
    return ('is missing' if size < 0 else
            f'has {size} bytes with checksum {checksum:08x}' if checksum else
            f'has {size} bytes')


def image_infos(dataset: Any) -> list[dict]:
    """Return the entries of the image list, without unknown data sets."""
    # Not the methods of subclasses, which add boxes to each entry.
    return [BaseDataset.get_data_info(leaf, i) for leaf in leaves(dataset)
            if isinstance(leaf, BaseDataset) for i in range(len(leaf))]


def flatten(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of each value of a config."""
    if isinstance(node, (dict, list, tuple)) and node:
        children = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in children:
            yield from flatten(child, f'{path}.{key}' if path else str(key))
    elif isinstance(node, (set, frozenset)):  # their order is random
        yield path, repr(sorted(map(repr, node)))
    elif callable(node) or type(node).__repr__ is object.__repr__:
        # repr has an address in the memory of the rank.
        yield path, getattr(node, '__qualname__', type(node).__name__)
    else:
        yield path, repr(node)


def _state_of(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _state_of(x) for key, x in node.items()}
    if isinstance(node, (list, tuple)):
        return [_state_of(x) for x in node]
    return node.state_dict() if hasattr(node, 'state_dict') else node


def digest_of(value: Any) -> str:
    """Return a digest of a value that JSON can represent."""
    text = json.dumps(value, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_of_code() -> str:
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*.py')):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _digest_of_tensors(node: Any) -> str:
    digest = hashlib.sha256()
    _update_digest(digest, node)
    return digest.hexdigest()[:16]


def _update_digest(digest: Any, node: Any) -> None:
    if isinstance(node, torch.Tensor):
        content = node.detach().cpu().contiguous().reshape(-1)
        digest.update(content.view(torch.uint8).numpy())
    elif isinstance(node, dict):
        for key, child in node.items():
            digest.update(str(key).encode())
            _update_digest(digest, child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            _update_digest(digest, child)
    else:
        digest.update(repr(node).encode())
