"""PyTorch's fused optimizers against its other kernels."""
import copy
import types

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from univip_mm.engine import NonFiniteHook
from univip_mm.engine.fused_optimizer import (
    skips_on_device,
    start_momentum,
    use_fused,
)

needs_fused = pytest.mark.skipif(
    torch.__version__ < '2.4',
    reason='PyTorch before 2.4 has no fused optimizers for the CPU')
KINDS = [(torch.optim.SGD, dict(momentum=0.9, weight_decay=1e-2)),
         (torch.optim.Adam, {}), (torch.optim.AdamW, {})]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3),
                         nn.Linear(3, 2))


def train(net, optimizer, steps=3):
    for i in range(steps):
        torch.manual_seed(i)
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(net.parameters()).detach()


@needs_fused
@pytest.mark.parametrize('kind, options', KINDS)
def test_use_fused_agrees_with_default_kernel(kind, options):
    vectors = []
    for is_fused in (False, True):
        net = network()
        optimizer = kind(net.parameters(), lr=0.01, **options)
        if is_fused:
            use_fused(optimizer)
            start_momentum(optimizer)
        assert skips_on_device(optimizer) == is_fused
        vectors.append(train(net, optimizer))
    torch.testing.assert_close(*vectors, rtol=1e-5, atol=1e-6)


@needs_fused
@pytest.mark.parametrize('kind, options', KINDS)
def test_use_fused_after_loading_older_state(kind, options):
    """The state of an optimizer that was not fused has other options."""
    net = network()
    old = kind(net.parameters(), lr=0.01, **options)
    train(net, old)
    expected = copy.deepcopy(net)
    new = kind(net.parameters(), lr=0.01, **options)
    use_fused(new)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert new.param_groups[0]['fused'] is None
    use_fused(new)
    assert new.param_groups[0]['fused'] is True
    other = kind(expected.parameters(), lr=0.01, **options)
    other.load_state_dict(old.state_dict())
    torch.testing.assert_close(train(net, new), train(expected, other))


@pytest.mark.parametrize('kind, options', [
    (torch.optim.SGD, dict(foreach=True)),
    (torch.optim.SGD, dict(fused=False)),
    # A skipped first step would change its second one.
    (torch.optim.SGD, dict(momentum=0.9, dampening=0.5)),
    (torch.optim.RMSprop, {})])
@needs_fused
def test_use_fused_keeps_other_choices(kind, options):
    optimizer = kind(network().parameters(), lr=0.01, **options)
    groups = copy.deepcopy(optimizer.state_dict())
    use_fused(optimizer)
    assert optimizer.state_dict() == groups
    assert not skips_on_device(optimizer)


def test_use_fused_turns_off_kernel_that_is_missing(monkeypatch):
    """A checkpoint can come from another device or version."""
    monkeypatch.delattr(torch, '_fused_sgd_', raising=False)
    optimizer = torch.optim.Adam(network().parameters())
    optimizer.param_groups[0]['fused'] = True
    use_fused(optimizer)
    assert not optimizer.param_groups[0]['fused']
    assert not skips_on_device(optimizer)


@needs_fused
def test_skipped_first_step_leaves_zero_momentum():
    """PyTorch leaves the memory of the buffers as it was."""
    net, expected = network(), network()
    optimizers = [torch.optim.SGD(x.parameters(), lr=0.1, momentum=0.9)
                  for x in (net, expected)]
    use_fused(optimizers[0])
    optimizers[0].found_inf = torch.ones(())
    for p in net.parameters():
        p.grad = torch.full_like(p, float('nan'))
    start_momentum(optimizers[0])
    optimizers[0].step()
    for p in net.parameters():
        assert optimizers[0].state[p]['momentum_buffer'].tolist() == (
            torch.zeros_like(p).tolist())
    optimizers[0].found_inf = torch.zeros(())
    torch.testing.assert_close(train(net, optimizers[0]),
                               train(expected, optimizers[1]))


class TwoWeights(nn.Module):
    """Model with one loss per weight."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))

    def forward(self, used):
        return dict(loss=sum(x.sum() for x in self.weights[:used]))


@needs_fused
def test_weight_with_late_first_gradient_trains():
    """PyTorch's fused SGD fails if only some weights have a buffer."""
    model = TwoWeights()
    wrapper = OptimWrapper(torch.optim.SGD(
        model.weights, lr=0.1, momentum=0.9))
    runner = types.SimpleNamespace(
        model=model, iter=0, optim_wrapper=wrapper, save_checkpoint=None)
    NonFiniteHook().before_train(runner)
    for used in (1, 2):
        wrapper.update_params(model(used)['loss'])
    assert [x[0].item() for x in model.weights] == [
        pytest.approx(1 - 0.1 - 0.19), pytest.approx(0.9)]
