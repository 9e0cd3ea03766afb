import numpy as np
import pytest

from univip_mm.models.augment_params import (
    NUM_UNIFORMS,
    Augmentation,
    sample_from_seeds,
    sample_params,
)


def sample(batch, **options):
    uniforms = np.random.default_rng(0).random(
        (batch, NUM_UNIFORMS), np.float32)
    return sample_params(uniforms, Augmentation(**options))


def test_sample_params_has_stated_frequencies_and_ranges():
    probs = dict(flip=0.5, jitter=0.8, gray=0.2, blur=0.1, solarize=0.2)
    n = 20_000
    params = sample(
        n, **{f'{name}_prob': prob for name, prob in probs.items()})
    for name, prob in probs.items():
        share = getattr(params, name).mean()
        assert abs(share - prob) < 5 * np.sqrt(prob * (1 - prob) / n), name
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    for (low, high), amount in zip(ranges, params.amount.T):
        assert low <= amount.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < amount.max() <= high
        assert abs(amount.mean() - (low + high) / 2) < 0.01
    assert 0.1 <= params.sigma.min() and params.sigma.max() <= 2.0
    orders, counts = np.unique(params.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert abs(counts - n / 24).max() < 5 * np.sqrt(n / 24)


def test_sample_params_differs_between_images():
    params = sample(64)
    assert len(np.unique(params.sigma)) == 64
    assert len(np.unique(params.amount[:, 0])) == 64


def test_sample_params_depends_on_one_number_each():
    # A seed must give the same views in all versions of the package.
    params = sample_params(np.array([[
        .4, .7, .25, .5, .75, 1 / 8, .3, .05, .5, .15, .9, .1, .6, .3],
        [.6, .9, 0, 0, 0, 0, .1, .2, 0, .3, .1, .2, .3, .4]], np.float32),
        Augmentation(blur_prob=.1, solarize_prob=.2))
    for name, expected in dict(
            flip=(1, 0), jitter=(1, 0), gray=(0, 1), blur=(1, 0),
            solarize=(1, 0)).items():
        np.testing.assert_array_equal(getattr(params, name), expected, name)
    np.testing.assert_array_equal(
        params.order, [[1, 3, 2, 0], [0, 1, 2, 3]])
    np.testing.assert_allclose(
        params.amount, [[.8, 1, 1.1, -.075], [.6, .6, .8, -.1]], rtol=1e-6)
    np.testing.assert_allclose(params.sigma, [1.05, .1], rtol=1e-6)


def test_sample_from_seeds_matches_new_generators():
    seeds = [5, 2**63 - 1, np.int64(7), 2**64 + 3]
    uniforms = sample_from_seeds(seeds, num_views=3)
    for seed, values in zip(seeds, uniforms):
        philox = np.random.Philox(key=seed)
        np.testing.assert_array_equal(
            values, np.random.Generator(philox).random(
                (3, NUM_UNIFORMS), np.float32))


@pytest.mark.parametrize('option, value', [
    ('flip_prob', 1.5), ('brightness', -1), ('hue', 0.7), ('blur_kernel', 4),
    ('blur_sigma', (0., 1.))])
def test_augmentation_rejects_values_out_of_range(option, value):
    with pytest.raises(ValueError, match=f'^{option} is .*: set a value'):
        Augmentation(**{option: value})
