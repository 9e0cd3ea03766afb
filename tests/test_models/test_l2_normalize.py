import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from univip_mm.models.l2_normalize import l2_normalize

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_l2_normalize_matches_torch(dtype):
    x = torch.randn(5, 3, 16, dtype=dtype, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weight = torch.randn(5, 3, 16, dtype=dtype)
    ours, theirs = l2_normalize(x), torch.nn.functional.normalize(y, dim=-1)
    torch.testing.assert_close(ours, theirs)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@given(
    exponent=st.floats(-45, 38),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(['random', 'one-hot', 'zero', 'equal']))
def test_l2_normalize_and_gradient_are_finite(
        exponent, dtype, kind):
    base = dict(
        random=torch.linspace(-1, 1, 32).sin(),
        zero=torch.zeros(32),
        equal=torch.ones(32))
    base['one-hot'] = torch.eye(32)[3]
    largest = torch.finfo(dtype).max
    x = (base[kind].double() * 10.0**exponent).clamp(-largest, largest)
    x = x.to(dtype).requires_grad_()
    y = l2_normalize(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    assert y.norm() <= 1 + 1e-5


def test_l2_normalize_ignores_scale_from_1e_7_to_1e37():
    x = torch.linspace(-1, 1, 32).sin().double()
    expected = x / x.norm()
    for exponent in (-7, 0, 18, 37):
        y = l2_normalize((x * 10.0**exponent).float())
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('size', [0, 6e-8, 1e-6, 1e-3])
def test_gradient_is_finite_if_normalized_twice(dtype, size):
    x = torch.full((2, 8), size).to(dtype).requires_grad_()
    y = torch.nn.functional.normalize(l2_normalize(x), dim=-1)
    (y * torch.arange(16).view(2, 8)).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad == 0).all() == (size == 0 or (
        dtype == torch.float16 and size < 1e-4))


def test_non_finite_vectors_stay_visible():
    for value in (float('nan'), float('inf')):
        x = torch.tensor([[1., value], [3., 4.]], requires_grad=True)
        y = l2_normalize(x)
        y.sum().backward()
        assert y[0].isnan().any() and x.grad[0].isnan().any()
        torch.testing.assert_close(y[1], torch.tensor([.6, .8]))
        assert x.grad[1].isfinite().all()


def test_gradient_of_the_gradient_is_refused():
    x = torch.ones(1, 2, requires_grad=True)
    gradient, = torch.autograd.grad(
        l2_normalize(x).exp().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()
