import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from univip_mm.models.effective_rank import effective_rank


def rank_me(features: np.ndarray) -> float:
    """Compute RankMe's formula with NumPy's singular values, in float64."""
    s = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    p = s / np.abs(s).sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize('channels', [1, 7, 64])
def test_rank_of_identity_is_number_of_channels(channels):
    assert effective_rank(torch.eye(channels)) == pytest.approx(
        channels, rel=1e-4)


def test_rank_of_two_unequal_directions_is_by_hand():
    x = torch.tensor([[3., 0, 0], [0, 1, 0]])
    # Shares 3/4 and 1/4: the entropy is 0.75 ln(4/3) + 0.25 ln 4.
    assert effective_rank(x) == pytest.approx((4 / 3)**0.75 * 4**0.25,
                                              rel=1e-5)


def test_rank_of_one_direction_is_one():
    x = torch.randn(500, 1) @ torch.randn(1, 300)
    assert effective_rank(x) == pytest.approx(1, abs=0.01)
    assert effective_rank(torch.ones(64, 256)) == pytest.approx(1, abs=0.01)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40),
       st.sampled_from([1e-30, 1e-3, 1., 1e30]), st.integers(0, 99))
def test_rank_matches_numpy(number, channels, directions, scale, seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(number, directions)) @ rng.normal(
        size=(directions, channels))).astype(np.float32)
    expected = rank_me(x)
    found = effective_rank(torch.from_numpy(x * np.float32(scale)))
    assert found == pytest.approx(expected, rel=1e-3)


def test_rank_of_zeros_is_zero():
    assert effective_rank(torch.zeros(5, 3)) == 0


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_rank_of_broken_features_is_nan(value):
    x = torch.ones(5, 3)
    x[2, 1] = value
    assert np.isnan(effective_rank(x))


def test_rank_accepts_half_precision():
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    assert effective_rank(x.bfloat16()) == pytest.approx(
        effective_rank(x), rel=0.01)
