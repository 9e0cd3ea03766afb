"""Load checkpoints without executing code, and find the one to resume."""
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple, Optional
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_torchvision_models

from ..utils.processes import is_first_rank
from ..utils.text import printable
from .run_record import MAX_COUNT, progress, read_record
from .safe_load import CheckpointError, check_reader, load

__all__ = ['CheckpointError', 'find_checkpoint', 'latest_checkpoint',
           'load_checkpoint', 'load_checkpoints_safely', 'load_url',
           'weights_of']


class Skipped(NamedTuple):
    """File that is not used to resume."""
    path: str
    reason: str
    is_damaged: bool  # or refused; else a file of another kind


class Found(NamedTuple):
    """Checkpoint that can be resumed; the largest one is used."""
    progress: tuple[float, int]
    time: float
    iteration: int


def load_checkpoints_safely() -> None:
    """Let MMEngine load all checkpoints with our safe reader.

    This also holds for weights of ``init_cfg``. Local files, ``http(s)://``
    and ``torchvision://`` are read; the other schemes of MMEngine, which have
    readers of their own, are refused.
    """
    register = CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(('http://', 'https://'), load_from_http, force=True)
    register('torchvision://', load_from_torchvision, force=True)
    register(('modelzoo://', 'open-mmlab://', 'openmmlab://', 'mmcls://',
              'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'),
             refuse_scheme, force=True)


def load_url(url: str) -> Any:
    """Load ``http(s)://`` or ``torchvision://``; refuse other schemes.

    In contrast to MMEngine's own loader, no code in the file is executed.

    Raises:
        CheckpointError: The scheme is another one, or the file cannot be
            loaded or is not safe.
    """
    if url.startswith(('http://', 'https://')):
        return load_from_http(url)
    if url.startswith('torchvision://'):
        return load_from_torchvision(url)
    return refuse_scheme(url)


# MMEngine logs the names of these functions without `load_from_`.
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a local file."""
    return load(os.path.expanduser(filename), map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Load a file from a server, or from the cache of torch.hub."""
    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    path = os.path.join(folder, os.path.basename(urlparse(filename).path))
    if not os.path.isfile(path):
        try:
            os.makedirs(folder, exist_ok=True)
            # Renamed when complete, so other ranks can do the same.
            torch.hub.download_url_to_file(filename, path, progress=False)
        except OSError as e:
            raise CheckpointError(
                f"cannot download '{printable(filename)}' ({printable(e)}): "
                'download the file yourself, and give its path') from None
    return load(path, map_location)


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Load the weights of a model of torchvision."""
    models = get_torchvision_models()
    name = filename[len('torchvision://'):]
    if name not in models:
        raise CheckpointError(f"'{printable(filename)}' is unknown: give the "
                              'name of a model in torchvision.models')
    return load_from_http(models[name], map_location)


def refuse_scheme(filename: str, map_location: Any = None) -> Any:
    """Refuse a file, because MMEngine would run code in it."""
    raise CheckpointError(
        f"'{printable(filename)}' is not loaded, because MMEngine would "
        'execute code in it: download the file, and give its path')


def load_checkpoint(path: str) -> dict:
    """Load a checkpoint to the CPU without executing code in it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a checkpoint, is truncated or not safe.
    """
    return _check_dict(path, load(path))


def _check_dict(path: str, content: Any) -> dict:
    if not isinstance(content, dict):
        raise ValueError(f"'{printable(path)}' contains a "
                         f'{type(content).__name__}, but a checkpoint is a '
                         'dict: give a checkpoint of tools/train.py')
    return content


def weights_of(content: dict) -> dict:
    """Return the state dict of a checkpoint or of plain weights.

    Raises:
        ValueError: The content is not a state dict.
    """
    weights = content.get('state_dict', content)
    if not isinstance(weights, dict):
        raise ValueError(f'state_dict is a {type(weights).__name__}, not a '
                         'state dict: use a checkpoint of tools/train.py')
    wrong = next((x for x in weights if not isinstance(x, str)), None)
    if wrong is not None:
        raise ValueError('the state dict has a name that is not a string, but '
                         f'a {type(wrong).__name__}: use a checkpoint of '
                         'tools/train.py')
    return weights


def resumed_iteration(content: Any) -> int:
    """Return the iteration after which a training resumes.

    Raises:
        ValueError: The content is not the checkpoint of a training.
    """
    for key in ('state_dict', 'meta', 'message_hub'):
        if not isinstance(content, dict) or not isinstance(
                content.get(key), dict):
            raise ValueError(f'not a training checkpoint, {key} is missing')
    for key in ('epoch', 'iter'):
        value = content['meta'].get(key)
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            raise ValueError(
                f'not a training checkpoint, meta.{key} is not a number '
                f'between 0 and {MAX_COUNT}')
    missing = {'log_scalars', 'runtime_info', 'resumed_keys'} - {
        key for key, value in content['message_hub'].items()
        if isinstance(value, dict)}
    if missing:
        raise ValueError('not a training checkpoint, message_hub.'
                         f'{min(missing)} is missing')
    try:
        read_record(content['meta'])
    except ValueError as e:
        raise ValueError(f'not a training checkpoint, {e}') from None
    return content['meta']['iter']


def latest_checkpoint(work_dir: str) -> tuple[Optional[str], list[Skipped]]:
    """Return the checkpoint of a work dir whose training is furthest.

    The candidates are all ``*.pth`` files and the one that
    ``last_checkpoint`` names. The position in the training is read from the
    files; between equal ones, the newest file is used.

    Returns:
        tuple[Optional[str], list[Skipped]]: Path of the checkpoint, or None;
        and the files that cannot be used.

    Raises:
        CheckpointError: This PyTorch cannot read checkpoints safely.
    """
    found, skipped = _read_positions(work_dir)
    return max(found, key=found.__getitem__, default=None), skipped


def _read_positions(work_dir: str) -> tuple[dict[str, Found], list[Skipped]]:
    """Return usable files, by path, and skipped files."""
    found: dict[str, Found] = {}
    skipped = []
    named = _named_checkpoint(work_dir)
    candidates = sorted(map(str, Path(work_dir).glob('*.pth')))
    if named and not any(_is_same(named, path) for path in candidates):
        candidates.append(named)
    if candidates:
        check_reader(candidates[0])  # once, not for each file
    for path in candidates:
        if not os.path.isfile(path):
            reason = ('a link to a missing file' if os.path.islink(path) else
                      'not a file' if os.path.exists(path) else 'missing')
            skipped.append(Skipped(path, reason, True))
            continue
        try:
            content = load(path, only_structure=True)
            iteration = resumed_iteration(content)
            found[path] = Found(
                progress(content), os.stat(path).st_mtime, iteration)
        except CheckpointError as e:
            skipped.append(Skipped(path, e.reason, True))
        except ValueError as e:
            skipped.append(Skipped(path, str(e), False))
    return found, skipped


def _named_checkpoint(work_dir: str) -> str:
    """Return the path in ``last_checkpoint``, or ''."""
    note = Path(work_dir, 'last_checkpoint')
    if not note.is_file():
        return ''
    with open(note, 'rb') as file:  # a path is shorter than 4,096 bytes
        return os.fsdecode(file.read(4096)).strip().replace('\0', '')


def _is_same(path: str, other: str) -> bool:
    return path == other or (os.path.exists(path) and os.path.exists(other)
                             and os.path.samefile(path, other))


def find_checkpoint(cfg: Config) -> None:
    """Check ``cfg.load_from``, or find the checkpoint to resume.

    If ``cfg.resume`` is set without a ``load_from``, set ``load_from`` to the
    checkpoint of the work dir whose training is furthest; without one, unset
    ``resume``. URLs are not checked.

    Raises:
        FileNotFoundError: The checkpoint is missing, or all are damaged.
        ValueError: The file of ``load_from`` cannot be read, or is not a
            training checkpoint although ``cfg.resume`` is set.
    """
    path = cfg.get('load_from')
    if path is None:
        if cfg.get('resume'):
            cfg.load_from = _find_latest(cfg.work_dir)
            # MMEngine would search the work dir again.
            cfg.resume = cfg.load_from is not None
        return
    if '://' in path:
        return
    path = os.path.expanduser(path)
    content = _check_dict(path, load(path, only_structure=True))
    if not cfg.get('resume'):
        weights_of(content)
        return
    try:
        resumed_iteration(content)
    except ValueError as e:
        raise ValueError(
            f"cannot resume from '{printable(path)}', which is {e}: give "
            '--resume a checkpoint that tools/train.py has written') from None


def _find_latest(work_dir: str) -> Optional[str]:
    """Return the checkpoint to resume, and report skipped files."""
    found, skipped = _read_positions(work_dir)
    name = printable(work_dir)
    words = '; '.join(
        f"'{printable(x.path)}' ({x.reason})" for x in skipped)
    if not found and any(x.is_damaged for x in skipped):
        raise FileNotFoundError(
            f"'{name}' has no checkpoint that can be resumed: {words}; give "
            '--resume CHECKPOINT, or omit --resume to start a new training')
    path = max(found, key=found.__getitem__, default=None)
    named = _named_checkpoint(work_dir)
    other = next((x for x in found if named and _is_same(x, named)), path)
    if not skipped and other == path:
        return path
    text = (f"'{name}' has no training checkpoint: starting a new training"
            if path is None else
            f"resuming from '{printable(path)}' "
            f'(iteration {found[path].iteration})')
    if other != path:
        text += (f"; last_checkpoint names another file, '{printable(other)}' "
                 f'(iteration {found[other].iteration})')
    if skipped:
        text += f'; skipped {words}'
    if is_first_rank():
        print_log(text, level=logging.WARNING)
    return path
