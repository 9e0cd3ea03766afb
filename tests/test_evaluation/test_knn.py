import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from univip_mm.evaluation import knn, knn_scores


def random_data(n, m, c, num_labels, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, c)), rng.integers(0, 2, (n, num_labels)),
            rng.normal(size=(m, c)))


def tensors(*arrays):
    return tuple(torch.from_numpy(x) for x in arrays)


def plain_knn(features, labels, queries, k, temperature):
    """The definition, one query and one neighbour at a time."""
    scores = []
    for query in queries:
        similarities = [
            sum(a * b for a, b in zip(query, feature)) /
            math.hypot(*query) / math.hypot(*feature) for feature in features
        ]
        nearest = sorted(
            range(len(features)), key=lambda i: -similarities[i])[:k]
        votes = {i: math.exp(similarities[i] / temperature) for i in nearest}
        scores.append([
            sum(votes[i] * labels[i][label] for i in nearest) /
            sum(votes.values()) for label in range(len(labels[0]))
        ])
    return np.array(scores)


@given(
    n=st.integers(1, 12),
    m=st.integers(1, 5),
    c=st.integers(2, 6),
    k=st.integers(1, 15),
    temperature=st.sampled_from([0.07, 0.5, 3.0]),
    seed=st.integers(0, 999))
def test_scores_are_those_of_the_definition(n, m, c, k, temperature, seed):
    data = random_data(n, m, c, 3, seed)
    assert np.allclose(
        knn_scores(*tensors(*data), k, temperature),
        plain_knn(*data, k, temperature), atol=1e-9)


def test_scikit_learn_gives_the_same_scores():
    features, labels, queries = random_data(60, 20, 8, 1)
    oracle = KNeighborsClassifier(
        7, metric='cosine', algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = oracle.fit(features, labels[:, 0]).predict_proba(queries)[:, 1]
    scores = knn_scores(*tensors(features, labels, queries), 7)
    assert np.allclose(scores[:, 0], expected)


def test_chunks_change_nothing(monkeypatch):
    data = tensors(*random_data(30, 17, 5, 4))
    whole = knn_scores(*data, 5)
    monkeypatch.setattr(knn, '_LARGEST_CHUNK', 100)  # three queries at a time
    assert torch.allclose(knn_scores(*data, 5), whole, atol=1e-12)


def test_the_length_of_a_feature_does_not_matter():
    features, labels, queries = tensors(*random_data(30, 9, 5, 4))
    lengths = torch.rand(30, 1) * 1e3 + 1e-3
    assert torch.allclose(
        knn_scores(features * lengths, labels, queries * 1e-4),
        knn_scores(features, labels, queries))


def test_all_vote_where_k_is_above_their_number():
    features, labels, queries = tensors(*random_data(5, 4, 3, 2))
    assert torch.equal(
        knn_scores(features, labels, queries, 500),
        knn_scores(features, labels, queries, 5))


def test_a_tiny_temperature_leaves_the_nearest_one():
    features, labels, _ = tensors(*random_data(20, 1, 6, 3))
    scores = knn_scores(features.float(), labels, features, 20, 1e-4)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, labels.float())


def test_no_score_is_above_one():
    features, _, queries = tensors(*random_data(200, 100, 6, 1))
    scores = knn_scores(features.float(), torch.ones(200, 1), queries, 50)
    assert scores.max() <= 1 and scores.min() > 0.9999


def test_no_query_gives_no_score():
    features, labels, _ = tensors(*random_data(5, 1, 3, 2))
    assert knn_scores(features, labels, features[:0]).shape == (0, 2)


@pytest.mark.parametrize('option', [dict(k=0), dict(temperature=0.0)])
def test_what_is_out_of_range_is_an_error(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        knn_scores(*tensors(*random_data(5, 1, 3, 2)), **option)
