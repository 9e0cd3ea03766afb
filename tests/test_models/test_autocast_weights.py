import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from univip_mm.models.autocast_weights import autocast_weights


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 36, 5)).requires_grad_(False)


class CountConversions(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(not hasattr(torch, 'get_autocast_dtype'),
                    reason='PyTorch before 2.4 converts in every pass')
def test_autocast_weights_convert_once_with_equal_results():
    model, other = network(), network()
    images = torch.rand(3, 2, 3, 8, 8)
    with torch.autocast('cpu', torch.bfloat16):
        expected = [model(x) for x in images]
        with CountConversions() as counter:
            weights = autocast_weights(other, 'cpu')
            assert counter.number == len(weights) == 4
            found = [functional_call(other, weights, x) for x in images]
    # The images, and the features before the linear layer.
    assert counter.number <= 4 + 2 * len(images)
    for a, b in zip(found, expected):
        assert a.dtype == torch.bfloat16 and torch.equal(a, b)
    for a, b in zip(other.state_dict().values(), model.state_dict().values()):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_autocast_weights_are_empty_without_autocast():
    assert autocast_weights(network(), 'cpu') == {}
    with torch.autocast('cpu', enabled=False):
        assert autocast_weights(network(), 'cpu') == {}


class Standardized(nn.Conv2d):
    """Convolution that computes with its weight, as mmcv's ConvWS2d."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


@pytest.mark.filterwarnings('ignore:.*weight_norm:FutureWarning')
def test_autocast_weights_leave_weights_of_formulas():
    layers = nn.Sequential(
        Standardized(3, 4, 1), torch.nn.utils.weight_norm(nn.Linear(4, 4)))
    with torch.autocast('cpu', torch.bfloat16):
        assert [*autocast_weights(layers, 'cpu')] == ['1.bias']
