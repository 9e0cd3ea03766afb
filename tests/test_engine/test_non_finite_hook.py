"""The hook in a tiny training in which one image is black.

`FragileResNet` divides by the contrast of the image, so its output is NaN.
"""
import os
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from tiny import ROOT, error_of, free_port, run_tool, write_config

from univip_mm.engine import NonFiniteHook
from univip_mm.engine.replay import load_replay

# These tests run without a GPU, where the scaler of CUDA does nothing.
needs_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'),
    reason='PyTorch before 2.3 has no loss scaler for the CPU')

BLACK = '3.jpg'
WITH_HOOK = """
train_dataloader = dict(batch_size=4)
model = dict(backbone=dict(type='{backbone}'))
default_hooks = dict(non_finite=dict({options}))
"""


@pytest.fixture
def black_image(coco_folder):
    path = str(coco_folder / 'images' / BLACK)
    cv2.imwrite(path, np.zeros_like(cv2.imread(path)))
    return coco_folder


def write(folder, options='', backbone='FragileResNet'):
    base = write_config(folder)
    path = folder / 'fragile.py'
    path.write_text(f"_base_ = './{base.name}'\n" + WITH_HOOK.format(
        options=options, backbone=backbone))
    return path


def test_stop_writes_message_and_replay_file(black_image, capsys):
    out = black_image / 'out'
    message = error_of('train', write(black_image), '--work-dir', out)
    replay, = (out / 'non_finite').iterdir()
    assert message.startswith(
        'error: loss_instance, loss_scene, loss_scene_instance is not finite '
        'at iteration ')
    assert str(replay) in message
    assert str(black_image / 'images' / BLACK) in message
    assert message.count('.jpg') == 4
    content = load_replay(replay)
    assert all(torch.isfinite(x).all() for name, x in content['model'].items()
               if 'running' not in name)
    views = content['batches'][0]['data']['inputs']
    assert [view.dtype for view in views] == [torch.uint8] * 6

    capsys.readouterr()
    run_tool('replay_batch', replay, '--import', 'tiny')
    output = capsys.readouterr().out
    assert 'loss_scene ' in output and 'NOT FINITE' in output
    image = f'{black_image}/images/{BLACK}'
    assert f"without '{image}' all values are finite" in output
    assert 'first layer' in output


def test_hook_keeps_finite_training_unchanged(coco_folder):
    losses = []
    for name in ('with', 'without'):
        config = (write(coco_folder, backbone='ResNet') if name == 'with' else
                  write_config(coco_folder))
        out = coco_folder / name
        run_tool('train', config, '--work-dir', out, '--cfg-options',
                 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4')
        losses.append((out / 'rank0.jsonl').read_text())
        assert not (out / 'non_finite').exists()
    assert losses[0] == losses[1]


def test_skip_stops_at_max_skips(black_image):
    out = black_image / 'out'
    config = write(black_image, "action='skip', max_skips=2")
    run_tool('train', config, '--work-dir', out)
    # Each of the two epochs has the black image once.
    assert len(list((out / 'non_finite').iterdir())) == 2
    log, = out.glob('*/*.log')
    assert 'skipped step 2 of at most 2' in log.read_text()
    weights = torch.load(out / 'epoch_2.pth', weights_only=False)['state_dict']
    assert all(torch.isfinite(x).all() for x in weights.values())

    message = error_of(
        'train', write(black_image, "action='skip', max_skips=1"),
        '--work-dir', black_image / 'fewer')
    assert '2 steps were not finite, and max_skips of NonFiniteHook is 1' in (
        message)


def test_all_ranks_stop_with_one_message(black_image):
    out = black_image / 'out'
    ended = subprocess.run(
        ['bash', ROOT / 'tools' / 'dist_train.sh', write(black_image), '2',
         '--work-dir', out, '--cfg-options', 'train_dataloader.batch_size=2'],
        text=True, capture_output=True, timeout=240,
        env=dict(os.environ, PORT=free_port(),
                 PYTHON=sys.executable, PYTHONPATH=str(ROOT / 'tests'),
                 CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1'))
    assert ended.returncode != 0
    errors = [x for x in ended.stderr.splitlines() if 'is not finite' in x]
    assert len(errors) == 1 and errors[0].startswith('error: ')
    # Only the rank with the black image writes a file.
    replay, = (out / 'non_finite').iterdir()
    assert str(replay) in errors[0] and BLACK in errors[0]
    assert errors[0].count('.jpg') == 2


class Loss(torch.nn.Module):
    """Model with a given loss value and a given gradient."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, value, gradient, std=1.):
        weight = self.weight * 1
        weight.register_hook(lambda scale: scale * gradient)
        loss = weight.sum()
        return dict(loss_x=loss - loss.detach() + value,
                    projection_std=torch.tensor(std))


class Amp(AmpOptimWrapper):
    """AmpOptimWrapper for the CPU; MMEngine's requires a GPU."""

    def __init__(self, optimizer, scale):
        OptimWrapper.__init__(self, optimizer)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        self._scale_update_param = None
        self.cast_dtype = torch.float16


def start(tmp_path, make=OptimWrapper, **options):
    model = Loss()
    warnings = []
    runner = types.SimpleNamespace(
        model=model, iter=0, work_dir=str(tmp_path), cfg=Config(),
        optim_wrapper=make(torch.optim.SGD(model.parameters(), lr=0.1)),
        logger=types.SimpleNamespace(warning=warnings.append))
    hook = NonFiniteHook(**options)
    hook.before_train(runner)

    def step(*values):
        hook.before_train_iter(runner, 0, dict(inputs=torch.zeros(1)))
        out = model(*values)
        runner.optim_wrapper.update_params(out['loss_x'])
        runner.iter += 1
        return model.weight.detach()[0].item()

    return step, warnings, hook, runner


NAN = float('nan')


@pytest.mark.parametrize('value, gradient, named', [
    (NAN, 1., 'loss_x is not finite'),
    (1., NAN, 'gradient of weight is not finite'),
    (1., float('inf'), 'gradient of weight is not finite'),
])
def test_step_keeps_weights_of_non_finite_batch(
        tmp_path, value, gradient, named):
    step, _, _, runner = start(tmp_path)
    assert step(1., 1.) == pytest.approx(0.9)
    with pytest.raises(FloatingPointError, match=named) as e:
        step(value, gradient)
    assert 'at iteration 2 on rank 0' in str(e.value)
    assert runner.model.weight[0].item() == pytest.approx(0.9)


def test_step_accepts_large_finite_gradients(tmp_path):
    step, _, _, _ = start(tmp_path)
    step(1., 1e30)  # its square overflows float32


@needs_scaler
def test_amp_overflow_is_error_only_at_scale_one(tmp_path):
    step, warnings, _, runner = start(tmp_path, lambda x: Amp(x, 4.))
    assert step(1., 1.) == pytest.approx(0.9)
    for scale in (2., 1.):
        assert step(1., NAN) == pytest.approx(0.9)
        assert runner.optim_wrapper.loss_scaler.get_scale() == scale
    assert step(1., 1.) == pytest.approx(0.8)
    with pytest.raises(FloatingPointError, match='gradient of weight'):
        step(1., NAN)


@needs_scaler
def test_amp_stops_at_non_finite_loss(tmp_path):
    step, _, _, _ = start(tmp_path, lambda x: Amp(x, 2.**16))
    with pytest.raises(FloatingPointError, match='loss_x'):
        step(NAN, 1.)


def test_skip_drops_whole_accumulated_step(tmp_path):
    step, warnings, _, _ = start(
        tmp_path, lambda x: OptimWrapper(x, accumulative_counts=2),
        action='skip')
    assert step(1., 1.) == 1.
    assert step(1., 1.) == pytest.approx(0.9)
    step(NAN, 1.)
    assert step(1., 1.) == pytest.approx(0.9)
    assert 'skipped step 1' in warnings[0] and 'iteration 4' in warnings[0]
    replay, = (tmp_path / 'non_finite').iterdir()
    assert len(load_replay(replay)['batches']) == 2
    step(1., 1.)
    assert step(1., 1.) == pytest.approx(0.8)


def test_full_disk_keeps_message(tmp_path, monkeypatch):

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(
        'univip_mm.engine.hooks.non_finite_hook.save_replay', full)
    step, _, _, _ = start(tmp_path)
    with pytest.raises(FloatingPointError, match='No space left') as e:
        step(NAN, 1.)
    assert 'loss_x is not finite' in str(e.value)


def test_collapse_warns_once_after_consecutive_steps(tmp_path):
    step, warnings, _, _ = start(tmp_path, collapse_iters=3)
    for std in (0.05, 0.05, 0.5, 0.05, 0.05):
        step(1., 0., std)
    assert warnings == []
    for _ in range(8):
        step(1., 0., 0.05)
    assert len(warnings) == 1
    assert 'below 0.1 for 3 steps and is now 0.05' in warnings[0]


def test_after_train_restores_step(tmp_path):
    _, _, hook, runner = start(tmp_path)
    assert runner.optim_wrapper.step != OptimWrapper.step.__get__(
        runner.optim_wrapper)
    hook.after_train(runner)
    assert runner.optim_wrapper.step == OptimWrapper.step.__get__(
        runner.optim_wrapper)


def test_hook_refuses_unknown_action():
    with pytest.raises(ValueError, match="'stop' or 'skip'"):
        NonFiniteHook(action='ignore')


def test_message_escapes_file_names(tmp_path):
    model = torch.nn.Linear(1, 1)
    model.weight.grad = torch.full((1, 1), float('nan'))
    runner = types.SimpleNamespace(
        model=model, iter=3, work_dir=str(tmp_path / 'a\nb'), cfg=Config(),
        optim_wrapper=None)
    hook = NonFiniteHook()
    sample = types.SimpleNamespace(metainfo=dict(img_path='\x1b[2J.jpg'))
    hook._batches = [(dict(data_samples=[sample]), dict(
        generators={}, cpu=torch.get_rng_state()))]
    message = hook._describe(runner)
    assert message.isprintable()
    assert r'a\nb/non_finite' in message and r'\x1b[2J.jpg' in message
