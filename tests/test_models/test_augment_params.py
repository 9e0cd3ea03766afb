import numpy as np
import pytest
import torch

from univip_mm.models.augment_params import (
    NUM_UNIFORMS,
    Augmentation,
    AugmentParams,
    sample_params,
)


def sample(batch, **options):
    uniforms = torch.rand(
        batch, NUM_UNIFORMS, generator=torch.Generator().manual_seed(0))
    return sample_params(uniforms, Augmentation(**options))


def test_sample_params_has_stated_frequencies_and_ranges():
    probs = dict(flip=0.5, jitter=0.8, gray=0.2, blur=0.1, solarize=0.2)
    n = 20_000
    params = sample(
        n, **{f'{name}_prob': prob for name, prob in probs.items()})
    for name, prob in probs.items():
        share = getattr(params, name).float().mean().item()
        assert abs(share - prob) < 5 * np.sqrt(prob * (1 - prob) / n), name
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    for (low, high), amount in zip(ranges, params.amount.T):
        assert low <= amount.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < amount.max() <= high
        assert abs(amount.mean() - (low + high) / 2) < 0.01
    assert 0.1 <= params.sigma.min() and params.sigma.max() <= 2.0
    orders, counts = torch.unique(params.order, dim=0, return_counts=True)
    assert len(orders) == 24
    assert (counts - n / 24).abs().max() < 5 * np.sqrt(n / 24)


def test_sample_params_differs_between_images():
    params = sample(64)
    assert len(params.sigma.unique()) == 64
    assert len(params.amount[:, 0].unique()) == 64


def test_augment_params_cat_inverts_split():
    params = sample(5)
    parts = params.split(2)
    assert [len(part.sigma) for part in parts] == [2, 2, 1]
    joined = AugmentParams.cat(parts)
    for name in AugmentParams.__dataclass_fields__:
        assert torch.equal(getattr(joined, name), getattr(params, name))


@pytest.mark.parametrize('option, value', [
    ('flip_prob', 1.5), ('brightness', -1), ('hue', 0.7), ('blur_kernel', 4),
    ('blur_sigma', (0., 1.))])
def test_augmentation_rejects_values_out_of_range(option, value):
    with pytest.raises(ValueError, match=f'^{option} is .*: set a value'):
        Augmentation(**{option: value})
