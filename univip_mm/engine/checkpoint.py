"""Load checkpoints without executing code, and find the one to resume."""
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any, Optional

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from ..utils import safe_pickle


def load_checkpoints_safely() -> None:
    """Let MMEngine load local checkpoints with our safe unpickler.

    No code in the file runs, but the types of MMEngine's log are allowed, so
    that a training can be resumed.
    """

    @CheckpointLoader.register_scheme('', force=True)
    def load_local(filename: str, map_location: Any = None) -> Any:
        return safe_pickle.load(os.path.expanduser(filename), map_location)


def load_checkpoint(path: str) -> dict:
    """Load a checkpoint to the CPU without executing code in it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a checkpoint, is truncated or not safe.
    """
    try:
        content = safe_pickle.load(path, 'cpu')
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint '{path}'") from None
    except Exception as e:
        raise ValueError(describe_refusal(path, e)) from None
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' contains a {type(content).__name__}, but "
                         'a checkpoint is a dict')
    return content


def describe_refusal(path: str, error: Exception) -> str:
    """Return one line that says why a checkpoint was not loaded."""
    # PyTorch adds a page of advice to the one sentence that matters.
    text = str(error) or type(error).__name__
    found = re.search(
        r'((Trying to load u|U)nsupported .*?)( was not|\. |\.?\n|$)', text)
    reason = found.group(1) if found else text.split('. ')[0].split('\n')[0]
    return (f"'{path}' is not a checkpoint, is truncated, or is not safe to "
            f'load: {reason}')


def is_whole(path: str) -> bool:
    """Return False if a checkpoint file is truncated.

    PyTorch's checkpoints are zip archives, whose directory is at the end of
    the file. Other non-empty files count as complete.
    """
    if zipfile.is_zipfile(path):
        return True
    with open(path, 'rb') as file:
        return file.read(2) not in (b'', b'PK')


def latest_checkpoint(work_dir: str) -> tuple[Optional[str], list[str]]:
    """Return the latest complete checkpoint of a work dir.

    The checkpoint named in ``last_checkpoint`` is tried first, then all
    others, from the newest to the oldest.

    Returns:
        tuple[Optional[str], list[str]]: Path of the checkpoint, or None; and
        the skipped paths, which are truncated or missing.
    """
    folder = Path(work_dir)
    found = sorted(folder.glob('*.pth'), key=lambda x: x.stat().st_mtime,
                   reverse=True)
    note = folder / 'last_checkpoint'
    named = note.read_text().strip() if note.is_file() else ''
    skipped = []
    for path in dict.fromkeys(filter(None, [named, *map(str, found)])):
        if os.path.isfile(path) and is_whole(path):
            return path, skipped
        skipped.append(path)
    return None, skipped


def find_checkpoint(cfg: Config) -> None:
    """Check ``cfg.load_from``, or find the checkpoint to resume.

    If ``cfg.resume`` is set without a ``load_from``, set ``load_from`` to the
    latest complete checkpoint of the work dir. URLs are not checked.

    Raises:
        FileNotFoundError: The checkpoint is missing, or none is complete.
        ValueError: The checkpoint of ``load_from`` is truncated.
    """
    path = cfg.get('load_from')
    if path is None:
        if cfg.get('resume'):
            cfg.load_from = _find_latest(cfg.work_dir)
        return
    if '://' in path:
        return
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"there is no checkpoint '{path}': check the path")
    if not is_whole(path):
        raise ValueError(
            f"the checkpoint '{path}' is truncated: give an earlier one, or "
            '--resume without a path, which finds a complete one')


def _find_latest(work_dir: str) -> Optional[str]:
    path, skipped = latest_checkpoint(work_dir)
    if path is None and skipped:
        raise FileNotFoundError(
            f"'{work_dir}' has no complete checkpoint: "
            f"{', '.join(map(repr, skipped))} truncated or missing; give "
            '--resume CHECKPOINT, or omit --resume to start a new training')
    if skipped:
        print_log(f'skipped {len(skipped)} truncated or missing checkpoints: '
                  + ', '.join(skipped), level=logging.WARNING)
    return path
