"""Schedules at the position of a resumed training."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingMomentum,
    LinearLR,
    MultiStepLR,
    ReduceOnPlateauLR,
    StepLR,
)
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from tiny import CONFIGS

from univip_mm.engine.schedules import (
    schedule_warnings,
    schedules_fit,
    step_schedules,
)

LENGTH = 5


def optimizer():
    """Return a wrapped optimizer of two groups."""
    groups = [dict(params=[torch.zeros(1, requires_grad=True)], lr=lr)
              for lr in (0.1, 0.3)]
    return OptimWrapper(torch.optim.SGD(groups, lr=0.2, momentum=0.9))


def build(wrapper, lr_end=8):
    """Return schedules by iteration and by epoch, of two options."""
    return [
        LinearLR.build_iter_from_epoch(
            wrapper, start_factor=0.1, end=2, epoch_length=LENGTH),
        CosineAnnealingLR.build_iter_from_epoch(
            wrapper, eta_min=0.01, begin=2, end=lr_end, epoch_length=LENGTH),
        StepLR(wrapper, step_size=3, gamma=0.5),
        CosineAnnealingMomentum(wrapper, T_max=30, eta_min=0.5,
                                by_epoch=False)]


def run(schedulers, iterations):
    """Step schedules as the training loop and its hook do."""
    for i in range(1, iterations + 1):
        for x in schedulers:
            if not x.by_epoch or i % LENGTH == 0:
                x.step()


def values(wrapper):
    return [(x['lr'], x['momentum']) for x in wrapper.param_groups]


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('iterations', [0, 3, 10, 11, 27, 45])
def test_step_schedules_equals_training(iterations):
    expected, found = optimizer(), optimizer()
    whole, stepped = build(expected), build(found)
    run(whole, iterations)
    step_schedules(stepped, iterations // LENGTH, iterations, LENGTH)
    assert values(found) == values(expected)
    assert [x.state_dict() for x in stepped] == [
        x.state_dict() for x in whole]
    assert schedules_fit([x.state_dict() for x in whole], build(optimizer()),
                         iterations // LENGTH, iterations)


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_schedules_fit_sees_each_change():
    whole = build(optimizer())
    run(whole, 12)
    stored = [x.state_dict() for x in whole]
    assert schedules_fit(stored, build(optimizer()), 2, 12)
    assert not schedules_fit(stored, build(optimizer()), 2, 13)
    assert not schedules_fit(stored, build(optimizer()), 3, 12)
    assert not schedules_fit(stored, build(optimizer(), 9), 2, 12)
    assert not schedules_fit(stored[1:], build(optimizer()), 2, 12)
    assert not schedules_fit(None, build(optimizer()), 2, 12)
    assert not schedules_fit([3] * 4, build(optimizer()), 2, 12)
    scaled = optimizer()
    for group in scaled.optimizer.param_groups:  # as auto_scale_lr does
        group['lr'] *= 2
    assert not schedules_fit(stored, build(scaled), 2, 12)


def test_plateau_schedule_stays_or_is_refused():
    scheduler = ReduceOnPlateauLR(optimizer(), monitor='loss')
    assert schedules_fit([dict(best=3)], [scheduler], 2, 12)
    with pytest.raises(ValueError, match='cannot be rebuilt'):
        step_schedules([scheduler], 2, 12, 6)


def warnings_of(schedulers, loop=EpochBasedTrainLoop, end=8):
    train_loop = loop.__new__(loop)
    is_epochs = loop is EpochBasedTrainLoop
    return schedule_warnings(SimpleNamespace(
        param_schedulers=schedulers, train_loop=train_loop,
        train_dataloader=range(LENGTH),
        max_iters=end * LENGTH if is_epochs else end))


def test_schedules_that_end_early_or_late_are_named():
    assert warnings_of(build(optimizer(), 4)[:2]) == [
        'the schedules in param_scheduler end after 4 epochs, but the '
        'training ends after 8, so they keep their last value from then on: '
        'set train_cfg.max_epochs=4, or the last `end` (and T_max) in '
        'param_scheduler to 8']
    for schedulers, words in (
            (build(optimizer(), 9)[:2], 'do not reach their last value'),
            (dict(a=build(optimizer(), 9)[:2]), 'do not reach their last'),
            ([CosineAnnealingLR(optimizer(), T_max=4)], 'end after 4 epochs')):
        text, = warnings_of(schedulers)
        assert words in text
    text, = warnings_of(build(optimizer())[3:], IterBasedTrainLoop, 31)
    assert 'end after 30 iterations, but the training ends after 31' in text


@pytest.mark.parametrize('by_epoch', [True, False])
def test_schedule_that_begins_too_late_is_named(by_epoch):
    step = 1 if by_epoch else LENGTH
    text, = warnings_of([
        LinearLR(optimizer(), start_factor=0.1, end=8 * step,
                 by_epoch=by_epoch),
        CosineAnnealingLR(optimizer(), begin=8 * step, end=20 * step,
                          by_epoch=by_epoch)])
    assert text.startswith(
        'the schedule CosineAnnealingLR in param_scheduler begins after 8 '
        'epochs, but the training ends after 8, so it has no effect')


@pytest.mark.parametrize('schedulers', [
    None, [], {}, [LinearLR(optimizer(), start_factor=0.1, end=3)],
    [ConstantLR(optimizer(), factor=0.1, end=3)],
    [MultiStepLR(optimizer(), milestones=[3])],
    [CosineAnnealingLR(optimizer(), end=8)],
    [CosineAnnealingLR(optimizer(), T_max=8)], build(optimizer(), 8)[:2]])
def test_usual_schedules_have_no_warning(schedulers):
    assert warnings_of(schedulers) == []


@pytest.mark.parametrize('path', CONFIGS.glob('univip_*.py'), ids=str)
def test_configs_end_with_their_schedules(path):
    cfg = Config.fromfile(path)
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_step_schedules_leaves_end_of_epoch_to_the_loop():
    """A checkpoint can be of the last iteration of an unfinished epoch."""
    schedulers = build(optimizer())
    step_schedules(schedulers, 1, 2 * LENGTH, LENGTH)
    assert [x._global_step for x in schedulers] == [10, 10, 1, 10]
