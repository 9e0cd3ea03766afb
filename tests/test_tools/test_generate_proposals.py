import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from image_bytes import encode
from tiny import error_of, free_port, make_coco_folder, run_tool

from univip_mm.datasets import ProposalCocoDataset
from univip_mm.proposals import ProposalFile
from univip_mm.registry import TRANSFORMS

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'generate_proposals.py'


@pytest.fixture
def folder(tmp_path):
    return make_coco_folder(tmp_path, number=16, side=120)


def command(folder, out, *options, ranks=None):
    start = [sys.executable]
    if ranks is not None:
        start += ['-m', 'torch.distributed.run', '--nproc-per-node',
                  str(ranks), '--master-port', free_port()]
    return [str(x) for x in (
        *start, TOOL, '--img-prefix', folder / 'images', '--ann-file',
        folder / 'train.json', '--out', folder / out, *options)]


def run(*args, **kwargs):
    return subprocess.run(
        command(*args, **kwargs), cwd=ROOT, capture_output=True, text=True,
        timeout=300)


def lines_written(folder, out):
    return sum(path.read_text().count('\n')
               for path in (folder / f'{out}.parts').glob('*.jsonl'))


def test_killed_search_resumes_to_same_file(folder):
    done = run(folder, 'undisturbed.npz', '--workers', '1')
    assert done.returncode == 0, done.stderr
    assert 'searched 16 images' in done.stdout
    assert '16/16' in done.stderr  # the progress bar
    rng = random.Random(0)
    for moment in sorted(rng.sample(range(1, 15), 2)):
        process = subprocess.Popen(
            command(folder, 'out.npz', '--workers', '2'), cwd=ROOT,
            stderr=subprocess.DEVNULL)
        while lines_written(folder, 'out.npz') < moment:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = lines_written(folder, 'out.npz')
    done = run(folder, 'out.npz', '--workers', '2')
    assert done.returncode == 0, done.stderr
    assert f'searched {16 - before} images' in done.stdout
    assert f'{before} were searched before' in done.stdout
    assert (folder / 'out.npz').read_bytes() == (
        folder / 'undisturbed.npz').read_bytes()


def test_ranks_share_images_and_survive_kill(folder):
    process = subprocess.Popen(
        command(folder, 'out.npz', '--workers', '1', ranks=2), cwd=ROOT,
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while lines_written(folder, 'out.npz') < 4:
        assert process.poll() is None
        time.sleep(0.01)
    ranks = [int(pid) for pid in subprocess.run(
        ['ps', '-o', 'pid=', '--ppid', str(process.pid)],
        capture_output=True, text=True).stdout.split()]
    os.kill(ranks[-1], signal.SIGKILL)
    assert process.wait(60) != 0  # torchrun stops the other rank
    assert not (folder / 'out.npz').exists()
    before = lines_written(folder, 'out.npz')
    done = run(folder, 'out.npz', '--workers', '1', ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f'searched {16 - before} images') == 1
    assert 'rank 0 of 2' in done.stderr
    assert run(folder, 'alone.npz').returncode == 0
    assert (folder / 'out.npz').read_bytes() == (
        folder / 'alone.npz').read_bytes()


@pytest.mark.parametrize('options, message', [
    (['--min-size', '0'], 'min_size is 0'),
    (['--ann-file', 'none.json'], "no annotation file 'none.json'"),
    (['--out', 'a.json'], 'must end in .npz'),
    (['--img-prefix', 'nowhere'], 'none of 16 images that were tried'),
    (['--max-aspect-ratio', 'inf'], 'max_aspect_ratio is inf'),
    (['--out', 'train.json/a.npz'], 'cannot write'),
    (['--img-prefix', 'http://host/images'], 'must be a path on the local'),
    (['--img-prefix', 'x.zip'], "x.zip' is damaged or cut short"),
    (['--img-prefix', 'x.tgz'], 'decompress it to a .tar'),
    (['--img-prefix', 'x.tar'], "set --img-prefix to 'x.tar/deep'"),
    (['--workers', '0'], 'workers is 0'),
    (['--launcher', 'slurm'], 'srun did not start')])
def test_user_errors_are_one_line(folder, options, message, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ('x.zip', 'x.tgz'):
        (folder / name).write_text('none')
    with tarfile.open('x.tar', 'w') as file:
        file.addfile(tarfile.TarInfo('deep/1.jpg'))
    arguments = command(folder, 'a.npz', *options)[2:]
    assert message in error_of('generate_proposals', *arguments)


def test_folder_without_json_is_listed(folder, capsys):
    run_tool('generate_proposals', '--img-prefix', folder / 'images', '--out',
             folder / 'own.npz', '--workers', '1')
    output = capsys.readouterr().out
    assert 'found 16 images' in output and 'searched 16 images' in output
    assert (folder / 'own.images.json').is_file()
    assert len(ProposalFile(folder / 'own.npz')) == 16


def test_archive_gives_the_proposals_of_its_folder(tmp_path):
    folder = make_coco_folder(tmp_path, number=3, side=70)
    shutil.make_archive(str(folder / 'x'), 'zip', folder / 'images')
    for name in ('images', 'x.zip'):
        run_tool('generate_proposals', '--img-prefix', folder / name, '--out',
                 folder / f'{name}.npz', '--workers', '1')
    assert (folder / 'images.images.json').read_bytes() == (
        folder / 'x.zip.images.json').read_bytes()
    found, expected = (np.load(folder / f'{name}.npz')
                       for name in ('x.zip', 'images'))
    assert len(expected['boxes'])
    for key in ('image_ids', 'offsets', 'boxes'):
        np.testing.assert_array_equal(found[key], expected[key])


@pytest.mark.timeout(60)
def test_names_are_escaped_and_pipes_are_skipped(folder, capsys):
    images = folder / 'images'
    for path in list(images.iterdir())[2:]:
        path.unlink()
    (images / 'a\x1b[2J\n.jpg').write_text('no image')
    (images / os.fsdecode(b'\xff.jpg')).write_text('no image')
    os.mkfifo(images / 'pipe.jpg')
    run_tool('generate_proposals', '--img-prefix', images, '--out',
             folder / 'own\t.npz', '--workers', '1')
    output = capsys.readouterr().out
    assert r'not read: a\x1b[2J\n.jpg: not an image' in output
    assert r'not read: \udcff.jpg: not an image' in output
    assert r'own\t.npz' in output and 'pipe' not in output
    assert 'not in the list of images' in output
    assert len(ProposalFile(folder / 'own\t.npz')) == 2
    assert (folder / 'own\t.unreadable.txt').read_text().startswith(
        'a\\x1b[2J\\n.jpg\tnot an image')


def test_folder_with_odd_names_and_bad_file_trains(folder, capsys):
    images, bad = folder / 'images', folder / 'images' / 'bad.jpg'
    name = os.fsdecode(b'\xff.jpg')
    for path in list(images.iterdir())[3:]:
        path.unlink()
    next(images.iterdir()).rename(images / name)
    bad.write_text('no image')
    options = ('--img-prefix', images, '--out', folder / 'own.npz',
               '--workers', '1', '--min-size', '30')
    run_tool('generate_proposals', *options)
    assert 'searched 4 images' in capsys.readouterr().out
    bad.unlink()
    shutil.copy(images / name, images / '0.jpg')
    run_tool('generate_proposals', *options)
    output = capsys.readouterr().out
    assert 'searched 1 images' in output and '3 were searched bef' in output
    data = ProposalCocoDataset(
        'own.images.json', 'own.npz', str(folder), dict(img_path='images'),
        [TRANSFORMS.build(dict(type='LoadEncodedImage')),
         TRANSFORMS.build(dict(type='OverlapSceneCrop', scene_size=32,
                               instance_size=16, min_size=30))])
    views = {os.path.basename(x['img_path']): x for x in data}
    assert len(views) == 4 and not data.skipped.any()
    assert (views['0.jpg']['num_proposed'] + views[name]['num_proposed']) > 0
    boxes = {os.path.basename(x['img_path']): x['proposals'] for x in
             map(data.get_data_info, range(4))}
    assert np.array_equal(boxes['0.jpg'], boxes[name])


def test_wrong_out_is_reported_before_the_folder_is_listed(
        folder, monkeypatch):
    monkeypatch.setattr('univip_mm.io.image_folder.list_folder', None)
    for out, message in (('', "'' must end in .npz"),
                         (folder / 'a.json', 'must end in .npz'),
                         (folder / 'train.json' / 'a.npz', 'cannot write')):
        assert message in error_of(
            'generate_proposals', '--img-prefix', folder / 'images', '--out',
            out)


def test_names_that_the_terminal_cannot_show_do_not_end_it(folder):
    (folder / 'images' / '写.jpg').write_text('no image')
    (folder / 'images' / 'cut.bmp').write_bytes(encode('BMP')[:2000])
    done = subprocess.run(
        [sys.executable, TOOL, '--img-prefix', folder / 'images', '--out',
         folder / 'é.npz', '--max-side', '40'], cwd=ROOT,
        capture_output=True, text=True,
        env=dict(os.environ, PYTHONIOENCODING='ascii'))
    assert done.returncode == 0, done.stderr
    assert r'not read: \u5199.jpg' in done.stdout
    assert r'\xe9.npz' in done.stdout
    # OpenCV's own messages about 'cut.bmp' do not name the file.
    assert 'cut.bmp' in done.stdout and '[ERROR' not in done.stderr
