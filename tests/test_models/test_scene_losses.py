import pytest
import torch
from torch import nn

from univip_mm.models.scene_losses import CosineSimilarityLoss, scene_losses

B, C = 3, 8


def features(dtype=torch.float32, requires_grad=True):
    """Return f_o1, f_o2, fused, f_t1 and f_t2."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, C, generator=generator).to(dtype).requires_grad_(
        requires_grad) for _ in range(5)]


class Subclass(CosineSimilarityLoss):
    """Loss that is called, since its type is not the host's."""


@pytest.mark.parametrize('options', [
    {}, dict(shift_factor=1., scale_factor=2.)])
def test_scene_losses_match_the_host(options):
    ours, called = features(), features()
    expected = scene_losses(Subclass(**options), *called)
    found = scene_losses(CosineSimilarityLoss(**options), *ours)
    host = CosineSimilarityLoss(**options)
    f_o1, f_o2, fused, f_t1, f_t2 = ours
    by_hand = (host(f_o1, f_t2) + host(f_o2, f_t1),
               host(fused, f_t1) + host(fused, f_t2))
    for a, b, c in zip(found, expected, by_hand):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)
    (found[0] + 2 * found[1]).backward()
    (expected[0] + 2 * expected[1]).backward()
    for a, b in zip(ours[:3], called[:3]):
        torch.testing.assert_close(a.grad, b.grad)
    assert all(x.grad is None for x in (*ours[3:], *called[3:]))


def test_scene_losses_are_float32_and_finite_under_autocast():
    inputs = [x.detach() for x in features(torch.float16)]
    inputs[0] = torch.full((B, C), 6e-8, dtype=torch.float16)  # as zero
    inputs[2] = inputs[2].float()  # a fusion neck that ends in float32
    inputs = [x.requires_grad_() for x in inputs]
    with torch.autocast('cpu', torch.bfloat16):
        losses = scene_losses(CosineSimilarityLoss(), *inputs)
    sum(losses).backward()
    assert all(x.dtype == torch.float32 for x in losses)
    assert all(x.grad.isfinite().all() for x in inputs[:3])
    assert not inputs[0].grad.any() and inputs[2].grad.any()


def test_scene_losses_call_other_losses():
    class Distance(nn.Module):
        def forward(self, prediction, target):
            return (prediction - target).square().sum(-1).mean()

    inputs = features()
    found = scene_losses(Distance(), *inputs)
    # |p - t|^2 = 2 - 2 cos
    cosines = scene_losses(CosineSimilarityLoss(), *inputs)
    for a, b in zip(found, cosines):
        torch.testing.assert_close(a, 4 + 2 * b)
