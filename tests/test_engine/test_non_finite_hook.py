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
from mmengine.config import Config, ConfigDict
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from tiny import ROOT, error_of, free_port, run_tool, write_config
from warm_python import warm_python

from univip_mm.engine import NonFiniteHook
from univip_mm.engine.checkpoint import load_checkpoint
from univip_mm.engine.replay import load_replay

# These tests run without a GPU, where the scaler of CUDA does nothing.
needs_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'),
    reason='PyTorch before 2.3 has no loss scaler for the CPU')

needs_fused = pytest.mark.skipif(
    torch.__version__ < '2.4',
    reason='PyTorch before 2.4 has no fused optimizers for the CPU')

BLACK = '3.jpg'
WITH_HOOK = """
train_dataloader = dict(batch_size=4)
model = dict(backbone=dict(type='{backbone}'))
default_hooks = dict(non_finite=dict({options}))
"""
# The same fused kernel without the hook.
WITHOUT_HOOK = f"""
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(fused={torch.__version__ >= '2.4'}))
default_hooks = dict(non_finite=dict(_delete_=True, type='EmptyCacheHook'))
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
    message = error_of(
        'train', write(black_image), '--work-dir', out, '--cfg-options',
        'default_hooks.checkpoint.by_epoch=False',
        'default_hooks.checkpoint.interval=1')
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

    # No checkpoint has the running statistics of the bad batch.
    for path in out.glob('*.pth'):
        assert load_checkpoint(str(path))['meta']['iter'] < (
            content['iteration'])

    capsys.readouterr()
    run_tool('replay_batch', replay, '--import', 'tiny')
    output = capsys.readouterr().out
    assert 'loss_scene ' in output and 'NOT FINITE' in output
    image = f'{black_image}/images/{BLACK}'
    assert f"without '{image}' all values are finite" in output
    assert 'first layer' in output


def test_hook_keeps_finite_training_unchanged(coco_folder):
    config = write(coco_folder, "action='skip'", 'ResNet')
    other = coco_folder / 'without.py'
    other.write_text(
        f"_base_ = './{write_config(coco_folder).name}'\n" + WITHOUT_HOOK)
    losses = []
    for path in (config, other):
        out = coco_folder / path.stem
        run_tool('train', path, '--work-dir', out, '--cfg-options',
                 'train_cfg.max_epochs=1')
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
                 PYTHON=warm_python(), PYTHONPATH=str(ROOT / 'tests'),
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


@pytest.fixture(params=[
    'foreach', pytest.param('fused', marks=needs_fused)])
def kind(request):
    """Return the optimizer's kernel; the fused one skips on the device."""
    return request.param


def start(tmp_path, kind, make=OptimWrapper, model=None, **options):
    """Return functions: do a step, and end an epoch; and other parts."""
    model = model or Loss()
    warnings, saved = [], []
    runner = types.SimpleNamespace(
        model=model, iter=0, work_dir=str(tmp_path), cfg=Config(),
        optim_wrapper=make(torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0., **{kind: True})),
        save_checkpoint=lambda: saved.append(runner.iter), saved=saved,
        logger=types.SimpleNamespace(warning=warnings.append))
    hook = NonFiniteHook(**options)
    hook.before_train(runner)

    def step(*values):
        hook.before_train_iter(
            runner, 0, dict(inputs=torch.full((1, ), float(runner.iter))))
        out = model(*values)
        runner.optim_wrapper.update_params(out['loss_x'])
        runner.iter += 1
        return model.weight.detach()[0].item()

    return step, lambda: hook.after_train_epoch(runner), warnings, runner


NAN = float('nan')


@pytest.mark.parametrize('value, gradient, named', [
    (NAN, 1., 'loss_x is not finite'),
    (1., NAN, 'gradient of weight is not finite'),
    (1., float('inf'), 'gradient of weight is not finite'),
])
def test_step_keeps_weights_of_non_finite_batch(
        tmp_path, kind, value, gradient, named):
    step, end_epoch, _, runner = start(tmp_path, kind)
    assert step(1., 1.) == pytest.approx(0.9)
    with pytest.raises(FloatingPointError, match=named) as e:
        step(value, gradient)
        end_epoch()
    assert 'at iteration 2 on rank 0' in str(e.value)
    assert runner.model.weight[0].item() == pytest.approx(0.9)


@needs_fused
@pytest.mark.parametrize('value, gradient', [(NAN, 1.), (1., NAN)])
def test_fused_stop_follows_at_next_step(tmp_path, value, gradient):
    step, _, _, runner = start(tmp_path, 'fused')
    step(1., 1.)
    assert step(value, gradient) == pytest.approx(0.9)  # no error yet
    with pytest.raises(FloatingPointError, match='at iteration 2 on rank 0'):
        step(1., 1.)
    replay, = (tmp_path / 'non_finite').iterdir()
    content = load_replay(replay)
    assert content['iteration'] == 2
    assert content['batches'][0]['data']['inputs'].item() == 1.
    assert content['model']['weight'][0].item() == pytest.approx(0.9)
    assert not hasattr(runner.optim_wrapper.optimizer, 'found_inf')


def test_no_checkpoint_is_saved_after_bad_step(tmp_path, kind):
    step, _, _, runner = start(tmp_path, kind)
    step(1., 1.)
    runner.save_checkpoint()
    with pytest.raises(FloatingPointError, match='at iteration 2 on rank 0'):
        step(NAN, 1.)
        runner.save_checkpoint()
    assert runner.saved == [1]


class Counting(Loss):
    """Model with a running statistic and a counter."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(2))
        self.register_buffer('scale', torch.ones((), dtype=torch.float64))
        self.register_buffer('count', torch.zeros((), dtype=torch.long))

    def forward(self, value, *others):
        self.mean += value
        self.scale *= value
        self.count += 1
        return super().forward(value, *others)


def test_skip_restores_running_statistics(tmp_path, kind):
    step, end_epoch, warnings, runner = start(
        tmp_path, kind, model=Counting(), action='skip')
    for value in (2., NAN, 3.):
        step(value, 1.)
    end_epoch()
    assert len(warnings) == 1 and 'iteration 2' in warnings[0]
    assert runner.model.mean.tolist() == [5., 5.]
    assert runner.model.scale == 6 and runner.model.count == 3
    assert runner.model.weight[0].item() == pytest.approx(0.8)


def test_step_accepts_large_finite_gradients(tmp_path, kind):
    step, end_epoch, _, _ = start(tmp_path, kind)
    step(1., 1e30)  # its square overflows float32
    end_epoch()


@needs_scaler
def test_amp_overflow_is_error_only_at_scale_one(tmp_path, kind):
    step, end_epoch, warnings, runner = start(
        tmp_path, kind, lambda x: Amp(x, 4.))
    assert step(1., 1.) == pytest.approx(0.9)
    for scale in (2., 1.):
        assert step(1., NAN) == pytest.approx(0.9)
        assert runner.optim_wrapper.loss_scaler.get_scale() == scale
    assert step(1., 1.) == pytest.approx(0.8)
    with pytest.raises(FloatingPointError, match='gradient of weight'):
        step(1., NAN)
        end_epoch()
    assert runner.model.weight[0].item() == pytest.approx(0.8)


@needs_scaler
def test_amp_stops_at_non_finite_loss(tmp_path, kind):
    step, end_epoch, _, runner = start(
        tmp_path, kind, lambda x: Amp(x, 2.**16))
    with pytest.raises(FloatingPointError, match='loss_x'):
        step(NAN, 1.)
        end_epoch()
    assert runner.model.weight[0].item() == 1.


@needs_scaler
def test_disabled_scaler_counts_as_none(tmp_path, kind):

    def make(optimizer):
        wrapper = Amp(optimizer, 1.)
        wrapper.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        return wrapper

    step, end_epoch, _, _ = start(tmp_path, kind, make)
    with pytest.raises(FloatingPointError, match='gradient of weight'):
        assert step(1., NAN) == 1.
        end_epoch()


def test_skip_drops_whole_accumulated_step(tmp_path, kind):
    step, end_epoch, warnings, _ = start(
        tmp_path, kind, lambda x: OptimWrapper(x, accumulative_counts=2),
        action='skip')
    assert step(1., 1.) == 1.
    assert step(1., 1.) == pytest.approx(0.9)
    step(NAN, 1.)
    assert step(1., 1.) == pytest.approx(0.9)
    step(1., 1.)
    assert step(1., 1.) == pytest.approx(0.8)
    assert 'skipped step 1' in warnings[0] and 'iteration 4' in warnings[0]
    replay, = (tmp_path / 'non_finite').iterdir()
    assert [x['data']['inputs'].item()
            for x in load_replay(replay)['batches']] == [2., 3.]


def test_full_disk_keeps_message(tmp_path, kind, monkeypatch):

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(
        'univip_mm.engine.hooks.non_finite_hook.save_replay', full)
    step, end_epoch, _, _ = start(tmp_path, kind)
    with pytest.raises(FloatingPointError, match='No space left') as e:
        step(NAN, 1.)
        end_epoch()
    assert 'loss_x is not finite' in str(e.value)


def test_collapse_warns_once_after_consecutive_steps(tmp_path, kind):
    step, _, warnings, _ = start(tmp_path, kind, collapse_iters=3)
    for std in (0.05, 0.05, 0.5, 0.05, 0.05):
        step(1., 0., std)
    assert warnings == []
    for _ in range(8):
        step(1., 0., 0.05)
    assert len(warnings) == 1
    assert 'below 0.1 for 3 steps and is now 0.05' in warnings[0]


def test_after_train_restores_step(tmp_path):
    runner = types.SimpleNamespace(
        model=Loss(), save_checkpoint=None,
        optim_wrapper=OptimWrapper(torch.optim.SGD(Loss().parameters())))
    hook, step = NonFiniteHook(), runner.optim_wrapper.step
    hook.before_train(runner)
    assert runner.optim_wrapper.step != step
    hook.after_train(runner)
    assert runner.optim_wrapper.step == step


def test_hook_accepts_config_of_optimizer():
    """`Runner.test` does not build the optimizer of the config."""
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD'))))
    NonFiniteHook().before_run(cfg)


def test_hook_is_off_with_several_optimizers():
    wrapper = OptimWrapperDict(
        a=OptimWrapper(torch.optim.SGD(Loss().parameters(), lr=0.1)))
    warnings = []
    runner = types.SimpleNamespace(
        model=Loss(), save_checkpoint=None, optim_wrapper=wrapper,
        logger=types.SimpleNamespace(warning=warnings.append))
    hook, batch = NonFiniteHook(), torch.ones(1)
    hook.before_run(runner)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, batch)
    assert sys.getrefcount(batch) <= 2  # not kept for a step
    hook.after_train(runner)
    assert len(warnings) == 1 and 'several optimizers' in warnings[0]


@pytest.mark.parametrize('wrapper', [
    None, ConfigDict(type='OptimWrapper', optimizer=dict(type='SGD'))])
def test_hook_accepts_run_without_training(wrapper):
    # `Runner.test` calls the hook, and keeps the config of the training.
    NonFiniteHook().before_run(types.SimpleNamespace(optim_wrapper=wrapper))


def test_hook_refuses_unknown_action():
    with pytest.raises(ValueError, match="'stop' or 'skip'"):
        NonFiniteHook(action='ignore')


def test_message_escapes_file_names(tmp_path):
    step, end_epoch, _, runner = start(tmp_path / 'a\nb', 'foreach')
    sample = types.SimpleNamespace(metainfo=dict(img_path='\x1b[2J.jpg'))
    hook = NonFiniteHook()
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, dict(data_samples=[sample]))
    with pytest.raises(FloatingPointError) as e:
        runner.optim_wrapper.update_params(runner.model(NAN, 1.)['loss_x'])
    message = str(e.value)
    assert message.isprintable()
    assert r'a\nb/non_finite' in message and r'\x1b[2J.jpg' in message
