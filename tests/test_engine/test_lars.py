import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from univip_mm.engine.optimizers import ForeachLARS
from univip_mm.registry import OPTIMIZERS

LARS = OPTIMIZERS.get('LARS')  # the host's
OPTIONS = dict(lr=0.5, momentum=0.9, weight_decay=1e-3, eta=0.02)


def weights():
    """Return weights, of which one is 0 and one is float64."""
    torch.manual_seed(0)
    shapes = (4, 3), (7, ), (2, 3, 2, 2), (5, ), (3, 3), (2, 2)
    values = [nn.Parameter(torch.randn(*shape)) for shape in shapes]
    values[4].data.zero_()
    values[2].data = values[2].data.to(memory_format=torch.channels_last)
    return [*values, nn.Parameter(torch.randn(3, 2, dtype=torch.float64))]


def groups(values):
    """Return groups such as `paramwise_cfg` makes."""
    return [dict(params=values[:2]), dict(params=values[2:3], lr=0.1),
            dict(params=values[3:4], lars_exclude=True, weight_decay=0.),
            dict(params=values[4:])]


def set_gradients(step, *models):
    """Set equal gradients; some are 0, missing, or not of the first step."""
    torch.manual_seed(step)
    gradients = [torch.randn_like(x) for x in models[0]]
    gradients[0].mul_(step != 2)
    for values in models:
        for i, (value, gradient) in enumerate(zip(values, gradients)):
            missing = i == 5 or i == 3 and step == 0
            value.grad = None if missing else gradient.clone()


def assert_same(ours, theirs, **tolerance):
    """Compare weights and buffers of two optimizers."""
    for a, b in zip(*(sum((g['params'] for g in x.param_groups), [])
                      for x in (ours, theirs))):
        torch.testing.assert_close(a, b, **tolerance)
    a, b = ours.state_dict(), theirs.state_dict()
    assert a['param_groups'] == b['param_groups']
    torch.testing.assert_close(a['state'], b['state'], **tolerance)


@pytest.mark.parametrize('options', [
    dict(), dict(nesterov=True), dict(dampening=0.3), dict(momentum=0.),
    dict(weight_decay=0.), dict(eps=0.5)])
def test_foreach_lars_matches_host(options):
    values = weights(), weights()
    ours, theirs = (
        kind(groups(x), **{**OPTIONS, **options})
        for kind, x in zip((ForeachLARS, LARS), values))
    for step in range(5):
        set_gradients(step, *values)
        assert ours.step(lambda: 3) == theirs.step(lambda: 3) == 3
        for x in (ours, theirs):
            x.param_groups[0]['lr'] *= 0.9  # as a schedule does
        assert_same(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('kinds', [(LARS, ForeachLARS), (ForeachLARS, LARS)])
def test_foreach_lars_and_host_resume_each_other(kinds):
    values = weights()
    first = kinds[0](groups(values), **OPTIONS)
    for step in range(2):
        set_gradients(step, values)
        first.step()
    others = copy.deepcopy(values)
    second = kinds[1](groups(others), **OPTIONS)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    set_gradients(3, values, others)
    first.step(), second.step()
    assert_same(second, first, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('options', [
    dict(), dict(nesterov=True), dict(momentum=0.)])
def test_foreach_lars_skips_step_if_found_inf(options):
    values = weights(), weights()
    skipped, other = (ForeachLARS(groups(x), **{**OPTIONS, **options})
                      for x in values)
    for step in range(4):
        set_gradients(step, *values)
        # The flag of a good step changes nothing.
        skipped.found_inf = torch.tensor(0.)
        skipped.step(), other.step()
        before = copy.deepcopy((values[0], skipped.state_dict()))
        for value, bad in zip(values[0], (float('nan'), float('inf')) * 3):
            if value.grad is not None:
                value.grad[0] = bad
        skipped.found_inf = torch.tensor(1.)
        skipped.step()
        assert_same(skipped, other, rtol=0, atol=0)
        for a, b in zip(values[0], before[0]):
            assert torch.equal(a, b)


def test_foreach_lars_skips_first_step():
    values = weights(), weights()
    skipped, other = (ForeachLARS(groups(x), **OPTIONS) for x in values)
    set_gradients(0, values[0])
    values[0][0].grad.fill_(float('nan'))
    skipped.found_inf = torch.tensor(1.)
    skipped.step()
    del skipped.found_inf
    set_gradients(1, *values)
    skipped.step(), other.step()
    assert_same(skipped, other, rtol=0, atol=0)


def test_foreach_lars_reads_nothing_from_the_device():
    values = [nn.Parameter(torch.randn(4, 3)) for _ in range(60)]
    optimizer = ForeachLARS([dict(params=[x]) for x in values], **OPTIONS)
    optimizer.found_inf = torch.tensor(0.)
    optimizer.grad_scale = torch.tensor(2.)
    calls = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    for _ in range(2):
        for value in values:
            value.grad = torch.randn_like(value)
        calls.clear()
        with Recorder():
            optimizer.step()
    assert not {'_local_scalar_dense', 'item', 'nonzero'} & set(calls)
    # Views start no kernel.
    assert len([x for x in calls if x not in ('view', 'detach')]) < 45


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'),
                    reason='needs a loss scaler on the CPU')
@pytest.mark.parametrize('unscales', [False, True])
def test_foreach_lars_with_loss_scaler_matches_float32(unscales):
    results = []
    for scale in (None, 2.**16):
        layer = nn.Linear(8, 4)
        nn.init.ones_(layer.weight), nn.init.ones_(layer.bias)
        optimizer = ForeachLARS(
            [dict(params=[layer.weight]),
             dict(params=[layer.bias], lars_exclude=True, lr=0.01)],
            **OPTIONS)
        scaler = torch.amp.GradScaler(
            'cpu', init_scale=scale or 1., enabled=scale is not None)
        for factor in (1., 2., float('inf'), 3.):
            if factor == float('inf') and scale is None:
                continue
            optimizer.zero_grad()
            loss = layer(torch.arange(8.) / 8 * factor).square().sum()
            scaler.scale(loss).backward()
            if unscales:  # as for clipping
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        results.append(dict(layer.state_dict()))
    torch.testing.assert_close(*results)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_foreach_lars_on_gpu_matches_host_without_waiting():
    values = [[nn.Parameter(x.detach().cuda()) for x in weights()]
              for _ in range(2)]
    ours, theirs = (kind(groups(x), **OPTIONS)
                    for kind, x in zip((ForeachLARS, LARS), values))
    flags = torch.tensor([0., 1.]).cuda()
    for step in range(3):
        set_gradients(step, *values)
        torch.cuda.set_sync_debug_mode('error')  # a host read raises
        try:
            for flag in flags:
                ours.found_inf = flag
                ours.step()
        finally:
            torch.cuda.set_sync_debug_mode('default')
        theirs.step()
        assert_same(ours, theirs, rtol=1e-6, atol=1e-7)
