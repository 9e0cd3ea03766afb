import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from univip_mm.models.zero_sum_init import make_zero_sum
from univip_mm.registry import MODELS

INIT = [dict(type='Kaiming', layer='Conv2d'),
        dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        dict(type='ZeroSum')]


@pytest.mark.parametrize('layer', [
    nn.Conv1d(8, 16, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(8, 16, 1),
    nn.Conv2d(8, 16, 3, groups=4), nn.Conv3d(2, 4, 3)])
def test_filters_keep_their_scale_and_ignore_a_constant(layer):
    before = layer.weight.detach().clone()
    make_zero_sum(nn.Sequential(layer))
    weight = layer.weight.detach()
    assert weight.flatten(1).sum(1).abs().max() < 1e-5
    assert weight.std() == pytest.approx(before.std().item())
    size = [5] * (weight.ndim - 2)
    constant = layer(torch.full((1, layer.in_channels, *size), 3.))
    bias = layer.bias.view(1, -1, *[1] * len(size))
    torch.testing.assert_close(constant, bias.expand_as(constant),
                               rtol=0, atol=1e-4)


def test_filters_of_one_weight_stay():
    layer = nn.Conv2d(4, 4, 1, groups=4)
    before = layer.weight.detach().clone()
    make_zero_sum(layer)
    assert torch.equal(layer.weight, before)


def test_init_cfg_of_a_backbone_gives_more_directions():
    shares = []
    torch.manual_seed(1)  # images of different strength
    images = torch.randn(64, 3, 64, 64) * torch.rand(64, 1, 1, 1)
    for init_cfg in (INIT[:2], INIT):
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('univip_mm'):
            backbone = MODELS.build(dict(
                type='ResNet', depth=18, init_cfg=init_cfg))
            backbone.init_weights()
        backbone.train()
        sums = backbone.layer3[0].conv1.weight.sum((1, 2, 3))
        assert (sums.abs().max() < 1e-4) == (len(init_cfg) == 3)
        with torch.no_grad():
            features = backbone(images)[-1].mean((2, 3))
        # Share of the variance in the first direction, by torch's SVD.
        values = torch.linalg.svdvals(features - features.mean(0)) ** 2
        shares.append(values[0] / values.sum())
    assert shares[1] < 0.8 * shares[0], shares
