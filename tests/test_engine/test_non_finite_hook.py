"""The hook in a training of two epochs of four iterations, of two images
each, of which one is black: `FragileResNet` divides by its contrast."""
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

# Without a GPU; that of CUDA does nothing there.
needs_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'),
    reason='PyTorch before 2.3 scales losses on GPUs alone')

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


def test_stops_with_one_message_and_a_replay_of_the_batch(black_image,
                                                          capsys):
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
    said = capsys.readouterr().out
    assert 'loss_scene ' in said and 'NOT FINITE' in said
    assert f"without '{black_image}/images/{BLACK}' all is finite" in said
    assert 'first layer' in said


def test_a_good_training_is_not_changed(coco_folder):
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


def test_skips_and_goes_on_up_to_a_limit(black_image):
    out = black_image / 'out'
    config = write(black_image, "action='skip', max_skips=2")
    run_tool('train', config, '--work-dir', out)
    # The black image comes once an epoch, and there are two.
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


def test_ranks_decide_alike_and_one_of_them_tells(black_image):
    out = black_image / 'out'
    ended = subprocess.run(
        ['bash', ROOT / 'tools' / 'dist_train.sh', write(black_image), '2',
         '--work-dir', out, '--cfg-options', 'train_dataloader.batch_size=2'],
        text=True, capture_output=True, timeout=240,
        env=dict(os.environ, PORT=free_port(),
                 PYTHON=sys.executable, PYTHONPATH=str(ROOT / 'tests'),
                 CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1'))
    assert ended.returncode != 0
    told = [x for x in ended.stderr.splitlines() if 'is not finite' in x]
    assert len(told) == 1 and told[0].startswith('error: ')
    # The file is of the rank that had the black image.
    replay, = (out / 'non_finite').iterdir()
    assert str(replay) in told[0] and BLACK in told[0]
    assert told[0].count('.jpg') == 2


class Loss(torch.nn.Module):
    """A loss that is what it is told, with a gradient as it is told."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, value, gradient, spread=1.):
        weight = self.weight * 1
        weight.register_hook(lambda scale: scale * gradient)
        loss = weight.sum()
        return dict(loss_x=loss - loss.detach() + value,
                    projection_std=torch.tensor(spread))


class Amp(AmpOptimWrapper):
    """MMEngine's needs a GPU to be made."""

    def __init__(self, optimizer, scale):
        OptimWrapper.__init__(self, optimizer)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        self._scale_update_param = None
        self.cast_dtype = torch.float16


def start(tmp_path, make=OptimWrapper, **options):
    model = Loss()
    said = []
    runner = types.SimpleNamespace(
        model=model, iter=0, work_dir=str(tmp_path), cfg=Config(),
        optim_wrapper=make(torch.optim.SGD(model.parameters(), lr=0.1)),
        logger=types.SimpleNamespace(warning=said.append))
    hook = NonFiniteHook(**options)
    hook.before_train(runner)

    def step(*values):
        hook.before_train_iter(runner, 0, dict(inputs=torch.zeros(1)))
        out = model(*values)
        runner.optim_wrapper.update_params(out['loss_x'])
        runner.iter += 1
        return model.weight.detach()[0].item()

    return step, said, hook, runner


NAN = float('nan')


@pytest.mark.parametrize('value, gradient, named', [
    (NAN, 1., 'loss_x is not finite'),
    (1., NAN, 'gradient of weight is not finite'),
    (1., float('inf'), 'gradient of weight is not finite'),
])
def test_weights_are_not_touched_by_what_is_not_finite(tmp_path, value,
                                                       gradient, named):
    step, _, _, runner = start(tmp_path)
    assert step(1., 1.) == pytest.approx(0.9)
    with pytest.raises(FloatingPointError, match=named) as e:
        step(value, gradient)
    assert 'at iteration 2 on rank 0' in str(e.value)
    assert runner.model.weight[0].item() == pytest.approx(0.9)


def test_large_finite_gradients_are_no_fault(tmp_path):
    step, _, _, _ = start(tmp_path)
    step(1., 1e30)  # whose square is beyond float32


@needs_scaler
def test_overflow_is_the_loss_scalers_affair_unless_it_is_at_its_end(tmp_path):
    step, said, _, runner = start(tmp_path, lambda x: Amp(x, 4.))
    assert step(1., 1.) == pytest.approx(0.9)
    for scale in (2., 1.):
        assert step(1., NAN) == pytest.approx(0.9)
        assert runner.optim_wrapper.loss_scaler.get_scale() == scale
    assert step(1., 1.) == pytest.approx(0.8)
    with pytest.raises(FloatingPointError, match='gradient of weight'):
        step(1., NAN)


@needs_scaler
def test_a_loss_is_a_fault_under_mixed_precision_too(tmp_path):
    step, _, _, _ = start(tmp_path, lambda x: Amp(x, 2.**16))
    with pytest.raises(FloatingPointError, match='loss_x'):
        step(NAN, 1.)


def test_a_bad_batch_spoils_the_step_that_it_is_accumulated_into(tmp_path):
    step, said, _, _ = start(
        tmp_path, lambda x: OptimWrapper(x, accumulative_counts=2),
        action='skip')
    assert step(1., 1.) == 1.
    assert step(1., 1.) == pytest.approx(0.9)
    step(NAN, 1.)
    assert step(1., 1.) == pytest.approx(0.9)
    assert 'skipped step 1' in said[0] and 'iteration 4' in said[0]
    replay, = (tmp_path / 'non_finite').iterdir()
    assert len(load_replay(replay)['batches']) == 2
    step(1., 1.)
    assert step(1., 1.) == pytest.approx(0.8)


def test_a_full_disk_does_not_hide_the_message(tmp_path, monkeypatch):

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(
        'univip_mm.engine.hooks.non_finite_hook.save_replay', full)
    step, _, _, _ = start(tmp_path)
    with pytest.raises(FloatingPointError, match='No space left') as e:
        step(NAN, 1.)
    assert 'loss_x is not finite' in str(e.value)


def test_a_collapse_is_told_once_after_so_many_steps_in_a_row(tmp_path):
    step, said, _, _ = start(tmp_path, collapse_iters=3)
    for spread in (0.05, 0.05, 0.5, 0.05, 0.05):
        step(1., 0., spread)
    assert said == []
    for _ in range(8):
        step(1., 0., 0.05)
    assert len(said) == 1
    assert 'below 0.1 for 3 steps, now 0.05' in said[0]


def test_wrapper_gets_its_own_step_back(tmp_path):
    _, _, hook, runner = start(tmp_path)
    assert runner.optim_wrapper.step != OptimWrapper.step.__get__(
        runner.optim_wrapper)
    hook.after_train(runner)
    assert runner.optim_wrapper.step == OptimWrapper.step.__get__(
        runner.optim_wrapper)


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="'stop' or 'skip'"):
        NonFiniteHook(action='ignore')
