import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from univip_mm.evaluation import linear_scores


def tensors(*arrays):
    return tuple(torch.from_numpy(x) for x in arrays)


def random_data(n=120, m=40, c=5, num_labels=3, noise=0.5, seed=0):
    """Return noisy half-space labels and features at mixed scales."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n + m, c))
    y = x @ rng.normal(size=(c, num_labels)) + noise * rng.normal(
        size=(n + m, num_labels)) > 0.8
    x = x * np.logspace(-3, 3, c) + np.linspace(-50, 50, c)
    return x[:n], y[:n].astype(int), x[n:], y[n:]


def test_linear_scores_minimize_penalized_likelihood():
    train, labels, test, _ = random_data()
    scores = linear_scores(*tensors(train, labels, test), cost=0.3)
    mean, std = train.mean(0), train.std(0)
    x, u = (train - mean) / std, (test - mean) / std
    for label, score in zip(labels.T, scores.numpy().T):

        def loss(w, label=label):
            logits = x @ w[1:] + w[0]
            return 0.5 * (w[1:]**2).sum() + 0.3 * np.logaddexp(
                0, np.where(label, -logits, logits)).sum()

        w = minimize(loss, np.zeros(6)).x
        expected = 1 / (1 + np.exp(-(u @ w[1:] + w[0])))
        assert np.allclose(score, expected, atol=2e-3)


def test_linear_scores_ignore_feature_scale():
    train, labels, test, _ = tensors(*random_data())
    scale = torch.logspace(-4, 4, 5)
    assert torch.allclose(
        linear_scores(train * scale + 7, labels, test * scale + 7),
        linear_scores(train, labels, test), atol=1e-4)


def test_linear_scores_separate_separable_labels():
    train, labels, test, test_labels = random_data(n=600, noise=0)
    scores = linear_scores(*tensors(train, labels, test), cost=100)
    assert ((scores.numpy() > 0.5) == test_labels).mean() > 0.97


def test_linear_scores_mean_is_label_share():
    train, labels, _, _ = tensors(*random_data())
    scores = linear_scores(train, labels, train)
    assert torch.allclose(scores.mean(0), labels.double().mean(0), atol=1e-3)


def test_linear_scores_constant_label():
    train, labels, test, _ = tensors(*random_data())
    labels[:, 0], labels[:, 2] = 0, 1
    scores = linear_scores(train, labels, test)
    assert (scores[:, 0] == 0).all() and (scores[:, 2] == 1).all()
    assert 0 < scores[:, 1].min() < scores[:, 1].max() < 1


@pytest.mark.parametrize('value', [0.0, 0.1, -3e7])
def test_linear_scores_ignore_constant_feature(value):
    train, labels, test, _ = tensors(*random_data())
    dead = torch.full((160, 1), value, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        scores = linear_scores(
            torch.cat([train, dead[:120]], 1), labels,
            torch.cat([test, dead[120:]], 1), cost=0.2)
    assert torch.allclose(
        scores, linear_scores(train, labels, test, cost=0.2), atol=1e-4)


def test_linear_scores_few_images_half_precision():
    rng = np.random.default_rng(0)
    train = torch.from_numpy(rng.normal(size=(10, 300))).half()
    labels = torch.tensor([[0, 1]] * 5 + [[1, 0]] * 5)
    scores = linear_scores(train, labels, train)
    assert torch.equal(scores > 0.5, labels.bool())


def test_linear_scores_without_test_images():
    train, labels, _, _ = tensors(*random_data())
    assert linear_scores(train, labels, train[:0]).shape == (0, 3)


def test_linear_scores_rejects_zero_cost():
    train, labels, test, _ = tensors(*random_data())
    with pytest.raises(ValueError, match='cost is 0'):
        linear_scores(train, labels, test, cost=0)
