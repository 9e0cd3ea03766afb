"""Train on two nodes that differ, and report how the training ends.

The nodes are those of :mod:`two_nodes`. Each has its own disk, mounted at the
same path, so one config can mean two data sets. Without a check, most of these
trainings end with exit code 0 and wrong weights. Needs root and Linux.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from tiny import PYTHONPATH, ROOT, make_coco_folder, write_config
from two_nodes import NODES, Network, Training, run_cases

EXAMPLE = '''
examples:
  python tests/soak/ranks_that_differ.py
  python tests/soak/ranks_that_differ.py --cases 'learning rate' 'one image'
'''


class DisksOfNodes(Network):
    """Nodes with a disk each, mounted at ``FOLDER/disk``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def start(self, node: int, command: Sequence[str],
              **options) -> subprocess.Popen:
        # `ip netns exec` gives each command its own table of mounts.
        mount = ['sh', '-c', 'mount --bind "$1" "$2"; shift 2; exec "$@"',
                 'sh', f'{self.folder}/disk{node}', f'{self.folder}/disk']
        return super().start(node, [*mount, *command], **options)


@dataclass(frozen=True)
class Case:
    """Difference of the nodes; ``change`` gets the disk of node 1."""
    name: str
    change: Callable[[Path], None]
    message: str  # a part of the expected message
    resume: bool = False


def replace(old: str, new: str) -> Callable[[Path], None]:
    """Return a change of the config."""

    def change(disk: Path) -> None:
        path = disk / 'tiny.py'
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return change


def append(line: str) -> Callable[[Path], None]:
    """Return an addition to the config."""

    def change(disk: Path) -> None:
        with open(disk / 'tiny.py', 'a') as file:
            file.write(f'{line}\n')
    return change


def change_image(disk: Path) -> None:
    shutil.copy(disk / 'images/1.jpg', disk / 'images/5.jpg')


def change_list(change: Callable[[list], list]) -> Callable[[Path], None]:
    def write(disk: Path) -> None:
        images = json.loads((disk / 'train.json').read_text())['images']
        (disk / 'train.json').write_text(
            json.dumps(dict(images=change(images))))
    return write


def remove_checkpoints(disk: Path) -> None:
    shutil.rmtree(disk / 'out')


def keep_older_checkpoint(disk: Path) -> None:
    (disk / 'out/epoch_2.pth').unlink()
    (disk / 'out/last_checkpoint').write_text(str(disk / 'out/epoch_1.pth'))


def change_checkpoint(disk: Path) -> None:
    # Node 1 has the weights of another training under the same name.
    shutil.copy(disk / 'other/epoch_2.pth', disk / 'out/epoch_2.pth')


CASES = [
    Case('none', lambda disk: None, ''),
    Case('learning rate', append('optim_wrapper = dict(optimizer=dict('
                                 'lr=0.123))'), 'optimizer.lr'),
    Case('epsilon of the loss',
         replace("model = dict(", "model = dict(\n    instance_loss=dict("
                 "epsilon=0.05),"), 'epsilon'),
    Case('seed', append('randomness = dict(seed=1)'), 'seed'),
    Case('number of epochs', replace('max_epochs=2', 'max_epochs=3'),
         'max_epochs'),
    Case('batch size', replace('batch_size=2', 'batch_size=4'), 'batch_size'),
    Case('no config', lambda disk: (disk / 'tiny.py').unlink(), 'no config'),
    Case('one image', change_image, '1 of 8 image files'),
    Case('order of the images', change_list(lambda x: x[::-1]),
         'list of images'),
    Case('number of images', change_list(lambda x: x[:6]),
         'number of images'),
    Case('no annotation file', lambda disk: (disk / 'train.json').unlink(),
         'no annotation file'),
    Case('resume: no checkpoint', remove_checkpoints, 'load_from', True),
    Case('resume: an older checkpoint', keep_older_checkpoint, 'load_from',
         True),
    Case('resume: other weights', change_checkpoint, 'differ in resume.',
         True),
]


def make_disks(folder: Path, case: Case) -> Path:
    """Make the disks of both nodes, and return their common path."""
    disk = make_coco_folder(folder / 'disk')
    write_config(disk)
    if case.resume:
        for name in ('other', 'out'):
            train(disk, name, seed=len(name))
    for node in NODES:
        shutil.copytree(disk, folder / f'disk{node}')
    case.change(folder / 'disk1')
    return disk


def train(disk: Path, name: str, seed: int) -> None:
    """Train two epochs in one process, into a folder of the disk."""
    subprocess.run(
        [sys.executable, ROOT / 'tools/train.py', disk / 'tiny.py',
         '--work-dir', disk / name, '--cfg-options',
         'default_hooks.checkpoint.interval=1', f'randomness.seed={seed}'],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=dict(os.environ, PYTHONPATH=PYTHONPATH, CUDA_VISIBLE_DEVICES=''))


def run(case: Case, cap: float) -> tuple[list[str], bool]:
    """Run a case; return the cells of its row, and whether it is right."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        disk = make_disks(folder, case)
        options = ['--cfg-options', 'train_cfg.max_epochs=4',
                   '--resume'] if case.resume else []
        with DisksOfNodes(folder) as network:
            start = time.monotonic()
            training = Training(network, folder, [disk / 'tiny.py'] * 2,
                                [disk / 'out'] * 2, options=options)
            try:
                ended = training.wait_for_end(cap)
                seconds = time.monotonic() - start
                codes, message = training.exit_codes(), training.message()
            finally:
                training.kill()
    is_right = ended is not None and case.message in message and (
        codes == '0, 0' if case.name == 'none' else '0' not in codes)
    return [case.name, f'> {cap:.0f}' if ended is None else f'{seconds:.0f}',
            codes, message], is_right


if __name__ == '__main__':
    run_cases(__doc__, EXAMPLE, 'difference of node 1 | seconds from start to '
              'end', CASES, run)
