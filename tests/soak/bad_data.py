"""Search proposals and train on a folder in which 5 % of the images are bad.

The tools must report each fault correctly, and the training must finish. With
the default limit of unreadable images, the training must stop. The images are
noise of 200 x 160 pixels; the model is a narrow ResNet-18, trained for one
epoch.
"""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from image_bytes import many_scans
from PIL import Image
from tiny import PYTHONPATH, ROOT, make_coco_folder, write_config

from univip_mm.io.boxes import ProposalRules
from univip_mm.io.images import (
    CUT_OFF,
    EMPTY,
    MISSING,
    NO_IMAGE,
    NOT_READ,
    NOT_REGULAR,
    TOO_MANY_SCANS,
    TOO_SMALL,
)
from univip_mm.proposals import ProposalFile, write_proposals

EXAMPLE = '''
example:
  python tests/soak/bad_data.py --number 400
'''

# Fault: reason that the training reports, or None if it uses the image.
FAULTS = {
    'truncated JPEG': CUT_OFF,
    'zero bytes': EMPTY,
    'text named .jpg': NO_IMAGE,
    'deleted': MISSING,
    'pipe': NOT_REGULAR,
    'link to a device': NOT_REGULAR,
    'link to itself': NOT_READ,
    '60 scans': TOO_MANY_SCANS,
    '1 x 4000': TOO_SMALL,
    '30000 x 2': TOO_SMALL,
    '16-bit PNG': None,
    'EXIF orientation 6': None,
    'CMYK': None,
    'grayscale': None}
BOXES = {  # images of 200 x 160
    'boxes partly outside': [[120, 80, 260, 200], [150, 100, 260, 200]],
    'boxes wholly outside': [[200, 0, 300, 100], [500, 500, 600, 600]],
    'no boxes': []}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--number', type=int, default=400,
                        help='number of images (default: %(default)s)')
    return parser.parse_args()


def damage(path: Path, kind: str) -> None:
    """Replace an image with a damaged version."""
    image = Image.open(path).convert('RGB')
    if kind == 'truncated JPEG':
        content = path.read_bytes()
        path.write_bytes(content[:len(content) // 2])
    elif kind == 'zero bytes':
        path.write_bytes(b'')
    elif kind == 'text named .jpg':
        path.write_text('<html>404 Not Found</html>')
    elif kind == 'deleted':
        path.unlink()
    elif kind == 'pipe':
        path.unlink()
        os.mkfifo(path)
    elif kind.startswith('link'):
        path.unlink()
        path.symlink_to('/dev/zero' if 'device' in kind else path)
    elif kind == '60 scans':
        path.write_bytes(many_scans(60))
    elif kind in ('1 x 4000', '30000 x 2'):
        image.resize(tuple(map(int, kind.split(' x ')))).save(path)
    elif kind == '16-bit PNG':
        gray = np.asarray(image.convert('L')).astype(np.uint16) * 257
        Image.fromarray(gray).save(path, format='PNG')
    elif kind == 'EXIF orientation 6':
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    else:
        image.convert('CMYK' if kind == 'CMYK' else 'L').save(path)


def run(name: str, *arguments) -> subprocess.CompletedProcess:
    environment = dict(
        os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
        PYTHONPATH=PYTHONPATH)
    return subprocess.run(
        [sys.executable, str(ROOT / f'tools/{name}.py'),
         *map(str, arguments)],
        env=environment, capture_output=True, text=True)


def train(config: Path, work_dir: Path, *options):
    """Train; return the process and the reasons of skipped images."""
    done = run('train', config, '--work-dir', work_dir, '--cfg-options',
               'train_cfg.max_epochs=1', 'param_scheduler.1.end=2',
               'train_dataloader.num_workers=2',
               'train_dataloader.batch_size=4', *options)
    lines = [line.split('\t') for path in work_dir.rglob('skipped_images.txt')
             for line in path.read_text().splitlines()]
    return done, {Path(path).name: reason for path, reason in lines}


def damage_images(root: Path, number: int) -> dict[str, str]:
    """Damage every 20th image; return file name → fault."""
    fault_of = {f'{1 + 20 * i}.jpg': list(FAULTS)[i % len(FAULTS)]
                for i in range(number // 20)}
    for name, fault in fault_of.items():
        damage(root / 'images' / name, fault)
    return fault_of


def search(root: Path) -> dict[str, str]:
    """Search the proposals; return file name → reason of unread images."""
    done = run('generate_proposals', '--img-prefix', root / 'images',
               '--ann-file', root / 'train.json', '--max-side', 64,
               '--out', root / 'found.npz')
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return dict(line.split('\t') for line in
                (root / 'found.unreadable.txt').read_text().splitlines())


def damage_boxes(root: Path, number: int) -> dict[str, str]:
    """Write proposals, 3 % of them bad; return file name → fault."""
    fault_of, boxes = {}, dict(ProposalFile(root / 'found.npz'))
    for i in range(3 * (number // 100)):
        fault = list(BOXES)[i % 3]
        fault_of[f'{2 + 20 * i}.jpg'] = fault
        boxes[10 * (2 + 20 * i)] = np.array(BOXES[fault]).reshape(-1, 4)
    write_proposals(root / 'train.npz', boxes,
                    dict(rules=ProposalRules().as_dict()))
    return fault_of


def check_faults(fault_of: dict, unread: dict, skipped: dict) -> list[str]:
    """Print a row for each fault; return what is wrong."""
    wrong = []
    print(f'{"fault":22}{"number":8}{"proposals":48}training')
    for fault in [*FAULTS, *BOXES]:
        names = [name for name, x in fault_of.items() if x == fault]
        in_search = {unread.get(name, 'searched') for name in names}
        in_training = {skipped.get(name, 'used') for name in names}
        print(f'{fault:22}{len(names):<8}{", ".join(sorted(in_search)):48}'
              f'{", ".join(sorted(in_training))}')
        expected = FAULTS.get(fault) or 'used'
        if names and in_training != {expected}:
            wrong.append(f'{fault}: {in_training}, not {expected}')
    others = (set(skipped) | set(unread)) - set(fault_of)
    if others:
        wrong.append(f'good images were skipped: {sorted(others)}')
    return wrong


def check_limit(stopped: subprocess.CompletedProcess, root: Path) -> list[str]:
    """Print the error of the stopped training; return what is wrong."""
    wrong = []
    errors = [line for line in stopped.stderr.splitlines()
              if line.startswith('error: ')]
    print(*(line.replace(str(root), '...') for line in errors), sep='\n')
    parts = 'cannot be read', 'max_unreadable', 'skipped_images.txt'
    if not stopped.returncode or len(errors) != 1 or not all(
            part in errors[0] for part in parts):
        wrong.append('the default limit: ' + stopped.stderr[-2000:])
    if 'Traceback' in stopped.stderr:
        wrong.append('a traceback with the default limit')
    return wrong


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = make_coco_folder(Path(temporary, 'data'), args.number)
        fault_of = damage_images(root, args.number)
        unread = search(root)
        fault_of.update(damage_boxes(root, args.number))
        config = write_config(root)
        done, skipped = train(
            config, root / 'finished',
            'default_hooks.skipped_images.max_unreadable=0.2')
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        stopped, _ = train(config, root / 'stopped')
    wrong = check_faults(fault_of, unread, skipped)
    print(f'\nimages {args.number}; limit 20 %: exit {done.returncode}; '
          f'limit 1 %: exit {stopped.returncode}')
    wrong += check_limit(stopped, root)
    if wrong:
        raise SystemExit('\n'.join(['FAILED', *wrong]))


if __name__ == '__main__':
    main()
