import copy
import math

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from univip_mm.models.ema import ForeachCosineEMA
from univip_mm.registry import MODELS

MAX_ITERS = 10


@pytest.fixture(autouse=True)
def max_iters():
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', MAX_ITERS)
    yield
    hub.update_info('max_iters', None)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4),
                         nn.Conv2d(4, 2, 1))


def change(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize('options', [
    dict(), dict(interval=2), dict(update_buffers=True),
    dict(end_momentum=0.01)])
def test_foreach_ema_matches_mmpretrain(options):
    model = network()
    ours = ForeachCosineEMA(model, momentum=0.3, **options)
    theirs = MODELS.get('CosineEMA')(model, momentum=0.3, **options)
    for _ in range(5):
        change(model)
        ours.update_parameters(model)
        theirs.update_parameters(model)
        assert ours.steps == theirs.steps
        for (name, a), b in zip(ours.state_dict().items(),
                                theirs.state_dict().values()):
            torch.testing.assert_close(a, b, msg=name)


def test_foreach_ema_matches_formula_in_float64():
    model = network()
    ema = ForeachCosineEMA(model, momentum=0.3)
    expected = None
    for step in range(6):
        change(model)
        ema.update_parameters(model)
        now = model[0].weight.detach().double()
        tau = 1 - 0.3 * (math.cos(math.pi * step / MAX_ITERS) + 1) / 2
        expected = now if step == 0 else tau * expected + (1 - tau) * now
        torch.testing.assert_close(
            ema.module[0].weight.double(), expected, rtol=1e-6, atol=1e-6)


def test_foreach_ema_resumes_checkpoint_of_the_host():
    model = network()
    theirs = MODELS.get('CosineEMA')(model, momentum=0.3)
    ours = ForeachCosineEMA(model, momentum=0.3)
    ours.update_parameters(model)  # differs from the count in the checkpoint
    for _ in range(3):
        change(model)
        theirs.update_parameters(model)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    change(model)
    ours.update_parameters(model)
    theirs.update_parameters(model)
    torch.testing.assert_close(ours.module[0].weight, theirs.module[0].weight)
    assert ours.steps == theirs.steps == 4
