import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from univip_mm.evaluation import knn, knn_predict, knn_scores


def random_data(n, m, c, num_labels, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, c)), rng.integers(0, 2, (n, num_labels)),
            rng.normal(size=(m, c)))


def tensors(*arrays):
    return tuple(torch.from_numpy(x) for x in arrays)


def plain_knn(train_features, train_labels, test_features, k, temperature):
    """Compute the definition with plain Python loops."""
    scores = []
    for query in test_features:
        similarities = [
            sum(a * b for a, b in zip(query, feature)) /
            math.hypot(*query) / math.hypot(*feature)
            for feature in train_features
        ]
        nearest = sorted(
            range(len(train_features)), key=lambda i: -similarities[i])[:k]
        votes = {i: math.exp(similarities[i] / temperature) for i in nearest}
        scores.append([
            sum(votes[i] * train_labels[i][label] for i in nearest) /
            sum(votes.values()) for label in range(len(train_labels[0]))
        ])
    return np.array(scores)


@given(
    n=st.integers(1, 12),
    m=st.integers(1, 5),
    c=st.integers(2, 6),
    k=st.integers(1, 15),
    temperature=st.sampled_from([0.07, 0.5, 3.0]),
    seed=st.integers(0, 999))
def test_knn_scores_matches_definition(n, m, c, k, temperature, seed):
    data = random_data(n, m, c, 3, seed)
    assert np.allclose(
        knn_scores(*tensors(*data), k, temperature),
        plain_knn(*data, k, temperature), atol=1e-9)


def test_knn_scores_matches_sklearn():
    train, labels, test = random_data(60, 20, 8, 1)
    oracle = KNeighborsClassifier(
        7, metric='cosine', algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = oracle.fit(train, labels[:, 0]).predict_proba(test)[:, 1]
    scores = knn_scores(*tensors(train, labels, test), 7)
    assert np.allclose(scores[:, 0], expected)


def test_knn_scores_independent_of_chunks(monkeypatch):
    data = tensors(*random_data(30, 17, 5, 4))
    whole = knn_scores(*data, 5)
    monkeypatch.setattr(knn, '_SCORES_CHUNK', 100)  # three test images
    assert torch.allclose(knn_scores(*data, 5), whole, atol=1e-12)


def test_knn_scores_ignores_feature_norm():
    train, labels, test = tensors(*random_data(30, 9, 5, 4))
    lengths = torch.rand(30, 1) * 1e3 + 1e-3
    assert torch.allclose(
        knn_scores(train * lengths, labels, test * 1e-4),
        knn_scores(train, labels, test))


def test_knn_scores_limits_k_to_train_size():
    train, labels, test = tensors(*random_data(5, 4, 3, 2))
    assert torch.equal(
        knn_scores(train, labels, test, 500),
        knn_scores(train, labels, test, 5))


def test_knn_scores_tiny_temperature_is_1nn():
    train, labels, _ = tensors(*random_data(20, 1, 6, 3))
    scores = knn_scores(train.float(), labels, train, 20, 1e-4)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, labels.float())


def test_knn_scores_at_most_one():
    train, _, test = tensors(*random_data(200, 100, 6, 1))
    scores = knn_scores(train.float(), torch.ones(200, 1), test, 50)
    assert scores.max() <= 1 and scores.min() > 0.9999


def test_knn_scores_without_test_images():
    train, labels, _ = tensors(*random_data(5, 1, 3, 2))
    assert knn_scores(train, labels, train[:0]).shape == (0, 2)


@pytest.mark.parametrize('option', [dict(k=0), dict(temperature=0.0)])
def test_knn_scores_rejects_bad_options(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        knn_scores(*tensors(*random_data(5, 1, 3, 2)), **option)


def single_label_data(number, classes=5):
    generator = torch.manual_seed(number)
    return (torch.randn(number, 8, generator=generator),
            torch.randint(classes, (number, ), generator=generator))


def test_knn_predict_matches_knn_scores_of_one_hot():
    (train, labels), (test, _) = single_label_data(60), single_label_data(40)
    torch.testing.assert_close(
        knn_predict(train, labels, test, 5, k=7),
        knn_scores(train, F.one_hot(labels, 5), test, k=7))


def test_knn_predict_votes_sum_to_one_for_large_k():
    (train, labels), (test, _) = single_label_data(3), single_label_data(10)
    votes = knn_predict(train, labels, test, 5, k=200)
    torch.testing.assert_close(votes.sum(1), torch.ones(10))


def test_knn_predict_independent_of_chunks(monkeypatch):
    (train, labels), (test, _) = single_label_data(60), single_label_data(40)
    whole = knn_predict(train, labels, test, 5)
    monkeypatch.setattr(knn, '_PREDICT_CHUNK', 180)  # three test images
    torch.testing.assert_close(knn_predict(train, labels, test, 5), whole)


def test_knn_predict_without_test_images():
    train, labels = single_label_data(6)
    assert knn_predict(train, labels, train[:0], 5).shape == (0, 5)
