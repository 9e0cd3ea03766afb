"""Files of a training, read for its report.

Nothing in these files is executed: configs are parsed, not run.
"""
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from ..io.config_text import parse_config
from ..io.files import open_regular, read_json
from ..io.work_dir_lock import is_in_use
from ..utils.text import printable
from .curves import read_scalars

RUNNING, FINISHED, STOPPED = 'running', 'finished', 'stopped'
# The lists of images that could not be used. In a line, a tab divides path
# and reason.
_SKIPPED = 'skipped_images.txt'
_UNREADABLE = 'unreadable.txt'
_POSITION = re.compile(
    r'(?:Epoch\(train\)\s+\[\s*(\d+)\]\[\s*(\d+)/(\d+)\]'
    r'|Iter\(train\)\s+\[\s*(\d+)/(\d+)\])')
_VERSION = re.compile(
    r'^ {4}(Python|PyTorch|TorchVision|OpenCV|MMEngine|CUDA available|NVCC'
    r'|GPU [\d,]+|GPU number|seed): (.*)$', re.MULTILINE)
# Longer logs and configs are cut in the middle, so that a report stays small.
_MAX_CHARS = 100_000


@dataclass
class RunFiles:
    """Content of the folder of a training.

    Attributes:
        out (Path): The folder.
        work_dir (Path): MMEngine's work dir, ``out`` or its ``checkpoints``.
        log (list[dict]): Lines of :func:`read_scalars`, or none.
        state (str): 'running', 'finished' or 'stopped'.
        iteration (int): Last logged iteration, or the last of all.
        max_iters (int): Iterations of the whole training, 0 if unknown.
        epoch (int): Last logged epoch, 0 if unknown.
        max_epochs (int): Epochs of the whole training, 0 if unknown.
        config_text (str): The complete config, or ''.
        config (dict): Its values, as :func:`parse_config` reads them.
        versions (dict[str, str]): Versions and hardware by name.
        skipped (dict[str, int]): Images that were not used, by reason.
        views (dict[int, Path]): Picture of the views by epoch.
        choices (list[dict]): ``choices`` of ``run.json``, texts by name.
    """
    out: Path
    work_dir: Path
    log: list[dict] = field(default_factory=list)
    state: str = STOPPED
    iteration: int = 0
    max_iters: int = 0
    epoch: int = 0
    max_epochs: int = 0
    config_text: str = ''
    config: dict = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    views: dict[int, Path] = field(default_factory=dict)
    choices: list[dict] = field(default_factory=list)


def read_run(out: Union[str, Path], state: Optional[str] = None) -> RunFiles:
    """Read the folder of a training.

    Args:
        out (str or Path): Work dir of ``tools/train.py``, or a folder whose
            ``checkpoints`` is such a work dir.
        state (str, optional): State of the training, if it is known.

    Raises:
        FileNotFoundError: The folder has no log of a training.
        ValueError: The log is damaged.
    """
    out = Path(out)
    work_dir = out / 'checkpoints' if (out / 'checkpoints').is_dir() else out
    folders = sorted(x.parent for x in work_dir.glob('*/vis_data'))
    if not folders:
        raise FileNotFoundError(
            f"no training log in '{work_dir}': give the folder of a training, "
            'such as work_dirs/univip_r18_demo')
    run = RunFiles(out, work_dir)
    run.log = _read_log(work_dir)
    run.config_text = _last_text(folders, 'vis_data/config.py')
    run.config = parse_config(run.config_text)
    text = '\n'.join(read_text(path) for folder in folders
                     for path in sorted(folder.glob('*.log')))
    run.versions = {name: printable(value).strip()
                    for name, value in _VERSION.findall(text)}
    _set_position(run, text)
    run.state = state or _state_of(run)
    if run.state == FINISHED:  # the last iterations need not be logged
        run.iteration = run.max_iters or run.iteration
    run.skipped = _count_skipped(out, folders)
    for path in (y for x in folders
                 for y in sorted(x.glob('vis_data/vis_image/views_*.png'))):
        if (number := path.stem.rpartition('_')[2]).isdecimal():
            run.views[int(number)] = path
    run.choices = _read_choices(out / 'run.json')
    return run


def value_at(config: dict, *keys: str) -> Any:
    """Return a nested value of a config, or None."""
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def read_text(path: Path) -> str:
    """Return a text file, or '' if the file cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read().decode('utf-8', 'replace')
    except OSError:
        return ''


def shorten(text: str, length: int = _MAX_CHARS) -> str:
    """Cut the middle out of a long text."""
    if len(text) <= length:
        return text
    half = length // 2
    return f'{text[:half]}\n\n… cut …\n\n{text[-half:]}'


def _read_log(work_dir: Path) -> list[dict]:
    try:
        return read_scalars(work_dir)
    except FileNotFoundError:
        return []
    except ValueError as e:
        if 'no line of' in str(e):  # nothing is logged yet
            return []
        raise


def _last_text(folders: list[Path], name: str) -> str:
    return next((text for folder in reversed(folders)
                 if (text := read_text(folder / name))), '')


def _set_position(run: RunFiles, text: str) -> None:
    """Set the position and the length of the training."""
    losses = [line for line in run.log if 'lr' in line]
    if losses:
        run.iteration = int(losses[-1]['step'])
        run.epoch = int(losses[-1].get('epoch', 0))
    run.max_epochs = value_at(run.config, 'train_cfg', 'max_epochs') or 0
    run.max_iters = value_at(run.config, 'train_cfg', 'max_iters') or 0
    found = _POSITION.findall(text)
    if found and run.max_epochs and found[-1][2]:
        run.max_iters = run.max_epochs * int(found[-1][2])
    elif found and found[-1][4]:
        run.max_iters = int(found[-1][4])


def _state_of(run: RunFiles) -> str:
    """Return the state by the last checkpoint and the lock."""
    name = Path(read_text(run.work_dir / 'last_checkpoint').strip()).stem
    if name in (f'epoch_{run.max_epochs}', f'iter_{run.max_iters}'):
        return FINISHED
    return RUNNING if is_in_use(run.work_dir) else STOPPED


def _count_skipped(out: Path, folders: list[Path]) -> dict[str, int]:
    """Count images once, under the last reason."""
    reasons = {}
    for path in (out / _UNREADABLE, *(x / _SKIPPED for x in folders)):
        for line in read_text(path).splitlines():
            name, _, reason = line.partition('\t')
            if name:
                reasons[name] = printable(reason) or 'not readable'
    return dict(Counter(reasons.values()).most_common())


def _read_choices(path: Path) -> list[dict]:
    """Return the choices of a ``run.json``; other content is ignored."""
    try:
        choices = read_json(path)['choices']
        return [{key: printable(value) for key, value in choice.items()}
                for choice in choices]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
