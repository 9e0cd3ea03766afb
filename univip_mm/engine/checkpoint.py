"""Checkpoints: loaded without executing anything in them, and the backbone
taken out of one."""
import os
import re
import zipfile
from pathlib import Path
from typing import Any, Optional

from mmengine.runner import CheckpointLoader

from ..utils import safe_pickle


def load_checkpoints_safely() -> None:
    """From now on, in this process, MMEngine's Runner loads local files by
    :mod:`univip_mm.utils.safe_pickle`: nothing in them is executed, and what
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


def _reason(error: Exception) -> str:
    """The sentence that says why, out of PyTorch's page of advice."""
    text = str(error) or type(error).__name__
    found = re.search(
        r'((?:Trying to load u|U)nsupported .*?)(?: was not|\. |\.?\n|$)',
        text)
    return found.group(1) if found else text.split('. ')[0].split('\n')[0]
