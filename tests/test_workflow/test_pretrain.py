import json
import signal
import subprocess
import time

import pytest
import torch
from backbones import random_backbone, write_checkpoint
from mmengine.config import Config
from test_workflow.small_run import OVERRIDES, write_photographs
from tiny import PYTHONPATH, ROOT
from warm_python import warm_python

import univip_mm
from univip_mm.downstream.export import export_backbone
from univip_mm.workflow import plan
from univip_mm.workflow import pretrain as module
from univip_mm.workflow.launch import TrainingError
from univip_mm.workflow.recipe import Devices


def start(photos, out, *options, overrides=OVERRIDES, **more):
    """Start the command on the photographs."""
    return subprocess.Popen(
        [warm_python(), '-m', 'univip_mm', 'pretrain', photos, '--out', out,
         '--arch', 'resnet18', *options, '--set',
         *(f'{key}={value}' for key, value in overrides.items())],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**module.os.environ, 'PYTHONPATH': PYTHONPATH}, **more)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Pre-train once from the command line; return all about it."""
    folder = tmp_path_factory.mktemp('pretrain')
    photos, out = write_photographs(folder / 'photos'), folder / 'run'
    process = start(photos, out, '--epochs', '2', '--devices', 'cpu')
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    return photos, out, stdout, stderr


def again(run, monkeypatch, **options):
    """Repeat the call in this process; count the trainings."""
    started = []
    monkeypatch.setattr(module, 'train', lambda *x: started.append(x))
    photos, out, *_ = run
    arguments = dict(arch='resnet18', epochs=2, devices='cpu',
                     overrides=OVERRIDES)
    result = univip_mm.pretrain(photos, out, **{**arguments, **options})
    return result, started


def test_pretrain_writes_all_files(run):
    _, out, *_ = run
    for name in ('config.py', 'images.json', 'proposals.npz',
                 'unreadable.txt', 'views.png', 'log.txt', 'losses.png',
                 'backbone.pth', 'report.html', 'run.json',
                 'checkpoints/epoch_2.pth'):
        assert (out / name).stat().st_size, name
    images = json.loads((out / 'images.json').read_text())['images']
    assert len(images) == 8
    assert (out / 'unreadable.txt').read_text().startswith('broken.jpg\t')
    backbone = torch.load(out / 'backbone.pth')['state_dict']
    checkpoint = torch.load(out / 'checkpoints/epoch_2.pth')['state_dict']
    for name, value in backbone.items():
        assert torch.equal(value, checkpoint[f'backbone.{name}'])


def test_pretrain_describes_what_it_does(run):
    _, out, stdout, stderr = run
    text = ' '.join(stdout.split())
    for words in ("9 images below", '9 images are few', '1 file, not used',
                  'batch size 8 ', 'epochs 2 as given [--epochs]',
                  'learning rate', 'architecture resnet18 ',
                  str(out / 'backbone.pth')):
        assert words in text, words
    assert '1 .txt' in stderr  # left out of the list
    assert 'Traceback' not in stderr


@pytest.mark.parametrize('style', ['pytorch', 'caffe'])
def test_snippet_fits_the_style_of_the_network(tmp_path, style):
    config = dict(type='ResNet', depth=18, style=style)
    path = write_checkpoint(
        random_backbone(config), tmp_path / 'epoch_1.pth', config)
    run = module.RunFolder(tmp_path)
    text = module._snippet(run, export_backbone(path, run.backbone))
    assert ('torchvision.models.resnet18()' in text) == (style == 'pytorch')
    assert ('mmpretrain' in text) == (style == 'caffe')


def test_pretrain_repeated_does_no_work(run, monkeypatch):
    _, out, *_ = run
    before = (out / 'proposals.npz').stat().st_mtime_ns
    record = (out / 'run.json').read_text()
    monkeypatch.setattr(plan, 'find_devices', lambda _: Devices(
        'cpu', 2, 'other machine'))
    result, started = again(run, monkeypatch)
    assert not started
    assert (out / 'run.json').read_text() == record
    assert (result.images, result.unreadable) == (8, 1)
    assert result.checkpoint.name == 'epoch_2.pth'
    assert (out / 'proposals.npz').stat().st_mtime_ns == before


def test_pretrain_refuses_another_run(run, monkeypatch):
    photos, *_ = run
    with pytest.raises(ValueError, match='resnet34: choose another --out'):
        again(run, monkeypatch, arch='resnet34')
    with pytest.raises(ValueError, match='--epochs 2, now 3.*add --resume'):
        again(run, monkeypatch, epochs=3)
    extra = photos / 'new.png'
    extra.write_bytes((photos / '0.png').read_bytes())
    try:
        with pytest.raises(ValueError, match='other images.*add --resume'):
            again(run, monkeypatch)
    finally:
        extra.unlink()


def test_pretrain_resumes_with_new_options(run, monkeypatch):
    """The training is replaced here, so two of three epochs are done."""
    _, out, *_ = run
    config = (out / 'config.py').read_text()
    record = (out / 'run.json').read_text()
    with pytest.raises(TrainingError, match='after 2 of 3 epochs'):
        again(run, monkeypatch, epochs=3, resume=True)
    assert Config.fromfile(out / 'config.py').train_cfg.max_epochs == 3
    (out / 'config.py').write_text(config)
    (out / 'run.json').write_text(record)


def test_pretrain_ends_early_if_epochs_are_lowered(run, monkeypatch):
    _, out, *_ = run
    config = (out / 'config.py').read_text()
    record = (out / 'run.json').read_text()
    result, started = again(run, monkeypatch, epochs=1, resume=True)
    assert not started
    assert Config.fromfile(out / 'config.py').train_cfg.max_epochs == 1
    assert result.checkpoint.name == 'epoch_2.pth'
    (out / 'config.py').write_text(config)
    (out / 'run.json').write_text(record)


def steps(out):
    """Return the steps in the logs, in the order of the trainings."""
    return [json.loads(line)['step']
            for path in sorted(out.glob('checkpoints/*/vis_data/scalars.json'))
            for line in path.read_text().splitlines() if '"loss"' in line]


@pytest.mark.parametrize('devices', ['cpu', 'cpu:2'])
def test_pretrain_saves_at_ctrl_c_and_goes_on(tmp_path, terminal, devices):
    photos, out = write_photographs(tmp_path / 'photos', 24), tmp_path / 'run'
    options = dict(overrides={**OVERRIDES, 'default_hooks.logger.interval': 1})
    words = ('--epochs', '2', '--batch-size', '2' if devices == 'cpu' else '4',
             '--devices', devices)
    process = start(photos, out, *words, **options)
    deadline = time.monotonic() + 120
    while not steps(out):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert 'press Ctrl-C again to end at once' in stderr
    assert stderr.endswith('stopped; repeat the command to go on\n')
    names = [path.name for path in (out / 'checkpoints').glob('*.pth')]
    assert names == ['preempted.pth']  # the first epoch had not ended
    done = len(steps(out))
    process = start(photos, out, *words, **options)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    number = 24 if devices == 'cpu' else 12
    assert steps(out) == list(range(1, number + 1))
    assert f'resumed in epoch 1 after iteration {done} of {number // 2}' in (
        (out / 'log.txt').read_text())


@pytest.mark.parametrize('name', ["it's", 'a{{b', 'new\nline', 'b\\c'])
def test_pretrain_refuses_names_of_no_config(tmp_path, name):
    photos = write_photographs(tmp_path / 'photos', number=2)
    with pytest.raises(ValueError, match='choose another name'):
        univip_mm.pretrain(photos, tmp_path / name, devices='cpu')


def test_pretrain_reports_mistakes_before_work(tmp_path, monkeypatch):
    photos = write_photographs(tmp_path / 'photos', number=2)
    monkeypatch.setattr(
        module, 'generate_proposals', lambda *_, **__: pytest.fail('work'))
    weights = tmp_path / 'weights.pth'
    torch.save(dict(a=torch.zeros(1)), weights)
    for options, text in (
            (dict(arch='resnet19'), 'no network'),
            (dict(epochs=0), '--epochs is 0'),
            (dict(init=weights), 'weights.pth'),
            (dict(overrides={'model.nothing': 1}), 'model'),
            (dict(batch_size=64), 'only 3 images')):
        with pytest.raises(ValueError, match=text):
            univip_mm.pretrain(photos, tmp_path / 'run', **{
                'arch': 'resnet18', 'devices': 'cpu', **options})


def test_pretrain_needs_readable_images(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match='no image below'):
        univip_mm.pretrain(folder, tmp_path / 'run', devices='cpu')
    for name in 'ab':
        (folder / f'{name}.jpg').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='none of the 2 images'):
        univip_mm.pretrain(folder, tmp_path / 'run', devices='cpu',
                           arch='resnet18')
