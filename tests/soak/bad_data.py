"""Proposals and a training of a folder in which 5 % of the images are bad.

Each fault has to show in the proposals and in the training as what it is,
and the training has to go through; with the default limit it has to stop.
Tiny: noise of 200 x 160, ResNet-18 of an eighth of its width, one epoch.

  python tests/soak/bad_data.py --number 400
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image
from tiny import ROOT, make_coco_folder, write_config

from univip_mm.io.boxes import ProposalRules
from univip_mm.proposals import ProposalFile, write_proposals

# Kind of fault: why the training replaces it, or None where it is used.
FAULTS = {
    'truncated JPEG': 'the file ends before the image does',
    'zero bytes': 'the file is empty',
    'text named .jpg': 'not an image, or a damaged one',
    'deleted': 'the file is missing',
    '1 x 4000': 'a side below min_image_size',
    '30000 x 2': 'a side below min_image_size',
    '16-bit PNG': None,
    'EXIF orientation 6': None,
    'CMYK': None,
    'greyscale': None}
BOXES = {  # in an image of 200 x 160
    'boxes partly outside': [[-40, -40, 60, 60], [150, 100, 260, 200]],
    'boxes wholly outside': [[200, 0, 300, 100], [-200, -200, -100, -100]],
    'no boxes': []}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--number', type=int, default=400,
                        help='of images (default: %(default)s)')
    return parser.parse_args()


def damage(path: Path, kind: str) -> None:
    """Put the fault in place of a whole image."""
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
    elif kind in ('1 x 4000', '30000 x 2'):
        image.resize(tuple(map(int, kind.split(' x ')))).save(path)
    elif kind == '16-bit PNG':
        grey = np.asarray(image.convert('L')).astype(np.uint16) * 257
        Image.fromarray(grey).save(path, format='PNG')
    elif kind == 'EXIF orientation 6':
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    else:
        image.convert('CMYK' if kind == 'CMYK' else 'L').save(path)


def run(name: str, *arguments) -> subprocess.CompletedProcess:
    environment = dict(
        os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
        PYTHONPATH=os.pathsep.join(map(str, (ROOT, ROOT / 'tests'))))
    return subprocess.run(
        [sys.executable, str(ROOT / f'tools/{name}.py'),
         *map(str, arguments)],
        env=environment, capture_output=True, text=True)


def train(config: Path, work_dir: Path, *options):
    """Its end, and by file name why images were replaced."""
    done = run('train', config, '--work-dir', work_dir, '--cfg-options',
               'train_cfg.max_epochs=1', 'param_scheduler.1.end=2',
               'train_dataloader.num_workers=2',
               'train_dataloader.batch_size=4', *options)
    lines = [line.split('\t') for path in work_dir.rglob('skipped_images.txt')
             for line in path.read_text().splitlines()]
    return done, {Path(path).name: reason for path, reason in lines}


def main() -> None:
    args = parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as temporary:
        root = make_coco_folder(Path(temporary, 'data'), args.number)
        faults = [list(FAULTS)[i % len(FAULTS)]
                  for i in range(args.number // 20)]
        kind_of = {f'{1 + 20 * i}.jpg': kind for i, kind in enumerate(faults)}
        for name, kind in kind_of.items():
            damage(root / 'images' / name, kind)
        found = run('generate_proposals', '--img-prefix', root / 'images',
                    '--ann-file', root / 'train.json', '--max-side', 64,
                    '--out', root / 'found.npz')
        if found.returncode:
            raise SystemExit(found.stdout + found.stderr)
        unread = dict(line.removeprefix('not read: ').split(': ', 1)
                      for line in found.stdout.splitlines()
                      if line.startswith('not read: '))
        boxes = dict(ProposalFile(root / 'found.npz'))
        for i in range(3 * (args.number // 100)):
            kind = list(BOXES)[i % 3]
            kind_of[f'{2 + 20 * i}.jpg'] = kind
            boxes[10 * (2 + 20 * i)] = np.array(BOXES[kind]).reshape(-1, 4)
        write_proposals(root / 'train.npz', boxes,
                        dict(rules=ProposalRules().as_dict()))
        config = write_config(root)
        done, why = train(config, root / 'through',
                          'default_hooks.skipped_images.max_unreadable=0.2')
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        stopped, _ = train(config, root / 'stopped')
        images = json.loads((root / 'train.json').read_text())['images']
    print(f'{"fault":22}{"number":8}{"proposals":48}training')
    for kind in [*FAULTS, *BOXES]:
        names = [name for name, x in kind_of.items() if x == kind]
        in_search = {unread.get(name, 'searched') for name in names}
        in_training = {why.get(name, 'used') for name in names}
        print(f'{kind:22}{len(names):<8}{", ".join(sorted(in_search)):48}'
              f'{", ".join(sorted(in_training))}')
        expected = FAULTS.get(kind) or 'used'
        if names and in_training != {expected}:
            wrong.append(f'{kind}: {in_training}, not {expected}')
    others = (set(why) | set(unread)) - set(kind_of)
    if others:
        wrong.append(f'whole images were skipped: {sorted(others)}')
    errors = [line for line in stopped.stderr.splitlines()
              if line.startswith('error: ')]
    print(f'\nimages {len(images)}; limit 20 %: exit {done.returncode}; '
          f'limit 1 %: exit {stopped.returncode}')
    print(*(line.replace(str(root), '...') for line in errors), sep='\n')
    parts = 'cannot be read', 'max_unreadable', 'skipped_images.txt'
    if not stopped.returncode or len(errors) != 1 or not all(
            part in errors[0] for part in parts):
        wrong.append('the default limit: ' + stopped.stderr[-2000:])
    if 'Traceback' in stopped.stderr:
        wrong.append('a traceback under the default limit')
    if wrong:
        print('\n'.join(wrong))
        raise SystemExit(1)


if __name__ == '__main__':
    main()
