"""Weights and optimizers of checkpoints, compared with those of a run."""
import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from univip_mm.engine.resumed_state import (
    check_model_fits,
    check_optimizer_fits,
    count_fitting_weights,
    use_present_values,
)
from univip_mm.registry import OPTIMIZERS


def wrapped(kind=torch.optim.SGD, split=False, **options):
    """Return a wrapped optimizer of a small layer after one step."""
    layer = nn.Linear(2, 2)
    groups = [dict(params=[x]) for x in layer.parameters()]
    optimizer = kind(groups if split else layer.parameters(),
                     **{'lr': 0.1, **options})
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return OptimWrapper(optimizer)


def stored(*args, **options):
    """Return the state of such an optimizer, as a checkpoint has it."""
    return copy.deepcopy(wrapped(*args, **options).state_dict())


def fits(state, wrapper, name='SGD', stored_name=''):
    check_optimizer_fits(state, wrapper, name, stored_name)


def test_model_needs_the_same_names_and_shapes():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    weights = dict(model.state_dict())
    check_model_fits(weights, model)
    check_model_fits({f'module.{k}': x for k, x in weights.items()}, model)
    for change, words in (
            ({'0.bias': torch.ones(3)}, r'0.bias is \(3,\) in the checkpoint '
             r'and \(2,\) in the model\)'),
            ({'a\nb': torch.ones(3)}, r'a\\nb is \(3,\) in the checkpoint and '
             'missing in the model')):
        with pytest.raises(ValueError, match=words):
            check_model_fits({**weights, **change}, model)
    with pytest.raises(ValueError, match=r'0.bias is int in the checkpoint'):
        check_model_fits({**weights, '0.bias': 3}, model)
    with pytest.raises(ValueError, match=r'is missing in the checkpoint and '
                       r'\(2, 2\) in the model, .*, and 2 others'):
        check_model_fits({}, model)


def test_fitting_weights_are_counted():
    model = nn.Linear(2, 2)
    assert count_fitting_weights(model.state_dict(), model) == (2, 2)
    assert count_fitting_weights(
        dict(weight=torch.ones(2, 2), bias=torch.ones(3), c=3), model) == (
            1, 2)


def test_optimizer_must_be_of_the_same_class():
    momentum = dict(momentum=0.9)
    fits(stored(**momentum), wrapped())
    with pytest.raises(ValueError, match='is another one, not AdamW'):
        fits(stored(), wrapped(torch.optim.AdamW), 'AdamW')
    with pytest.raises(ValueError, match='is Adam, not AdamW'):
        fits(stored(torch.optim.Adam), wrapped(torch.optim.AdamW), 'AdamW',
             'Adam')
    with pytest.raises(ValueError, match='is another one, not SGD'):
        fits(stored(torch.optim.AdamW), wrapped())


@pytest.mark.parametrize('names', [
    ('LARS', 'ForeachLARS'), ('ForeachLARS', 'LARS')])
def test_optimizers_of_equal_state_resume_each_other(names):
    kinds = [OPTIMIZERS.get(name) for name in names]
    options = dict(momentum=0.9, weight_decay=0.1)
    fits(stored(kinds[0], **options), wrapped(kinds[1]), *names[::-1])
    for other in ('SGD', 'Lars'):
        with pytest.raises(ValueError, match=f'is {other}, not {names[1]}'):
            fits(stored(kinds[0], **options), wrapped(kinds[1]), names[1],
                 other)


def test_optimizer_must_have_the_same_groups():
    fits(stored(split=True), wrapped(split=True))
    with pytest.raises(ValueError, match='has 2 groups of 2 weights, but '
                       'this run has 1 groups of 2'):
        fits(stored(split=True), wrapped())
    partial = stored(split=True)
    del partial['base_param_settings']
    with pytest.raises(ValueError, match='no base_param_settings'):
        fits(partial, wrapped(split=True))


@pytest.mark.parametrize('state', [
    {}, [], 3, dict(param_groups=3), dict(param_groups=[3]),
    dict(param_groups=[dict(params=3)]), dict(param_groups=[])])
def test_optimizer_of_another_form_is_refused(state):
    with pytest.raises(ValueError, match='its optimizer'):
        fits(state, wrapped())


def test_schedule_can_be_added():
    """Only schedules give a group an initial value."""
    present = wrapped()
    present.param_groups[0]['initial_lr'] = 0.1
    fits(stored(), present)


@pytest.mark.parametrize('value', ['1', None, float('nan'), (1, 'a')])
def test_options_of_optimizer_must_be_numbers(value):
    state = stored()
    state['param_groups'][0]['lr'] = value
    with pytest.raises(ValueError, match='lr of its optimizer is .*, but '):
        fits(state, wrapped())


def test_state_of_loss_scaler_must_be_numbers():
    wrapper = wrapped()
    wrapper.loss_scaler = torch.amp.GradScaler('cpu')
    scale = wrapper.loss_scaler.state_dict()
    fits({**stored(), 'loss_scaler': scale}, wrapper)
    for wrong in ({}, 'a', {**scale, 'scale': 'a'}):
        state = {**stored(), 'loss_scaler': wrong}
        with pytest.raises(ValueError, match='but must be a number'):
            fits(state, wrapper)
        fits(state, wrapped())  # without mixed precision, it is not used


@pytest.mark.parametrize('kind, name', [
    (torch.optim.SGD, 'momentum_buffer'), (torch.optim.AdamW, 'exp_avg')])
@pytest.mark.parametrize('value', [torch.ones(3), 'a'])
def test_buffers_must_fit_the_weights(kind, name, value):
    state = stored(kind)
    fits(state, wrapped(kind))
    state['state'][1] = {name: value}
    with pytest.raises(ValueError, match='buffers of its optimizer are of'):
        fits(state, wrapped(kind))
    state['state'] = value
    with pytest.raises(ValueError, match='buffers of its optimizer are of'):
        fits(state, wrapped(kind))


def test_options_of_older_torch_are_accepted():
    """Switches that a version of PyTorch adds are not in older files."""
    state = stored()
    for key in ('foreach', 'fused', 'maximize', 'differentiable'):
        state['param_groups'][0].pop(key, None)
    fits(state, wrapped())


@pytest.mark.parametrize('split', [False, True])
def test_present_options_win_and_buffers_stay(split):
    state = stored(split=split, momentum=0.9, weight_decay=1e-4)
    new = wrapped(split=split, momentum=0.8, weight_decay=0.5, lr=0.3)
    state['param_groups'][0]['initial_momentum'] = 0.95  # schedule is gone
    buffers = copy.deepcopy(state['state'])
    assert use_present_values(state, new) == [
        'lr 0.1 -> 0.3', 'momentum 0.9 -> 0.8', 'weight_decay 0.0001 -> 0.5']
    new.load_state_dict(state)
    for group in new.param_groups:
        assert (group['lr'], group['momentum'], group['weight_decay']) == (
            0.3, 0.8, 0.5)
        assert 'initial_momentum' not in group
    for i, buffer in buffers.items():
        assert torch.equal(new.state_dict()['state'][i]['momentum_buffer'],
                           buffer['momentum_buffer'])


def test_kernel_of_older_run_is_no_change():
    state = stored()
    new = wrapped(foreach=False)
    new.param_groups[0]['fused'] = True
    assert use_present_values(state, new) == []
    assert state['param_groups'][0]['fused'] is True


def test_scheduled_options_stay():
    state = stored(momentum=0.9)
    state['param_groups'][0]['initial_lr'] = 0.7
    new = wrapped(momentum=0.8, lr=0.3)
    assert use_present_values(state, new, {'lr'}) == ['momentum 0.9 -> 0.8']
    assert state['param_groups'][0]['lr'] == 0.1
    assert state['param_groups'][0]['initial_lr'] == 0.7
