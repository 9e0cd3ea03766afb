import itertools

import numpy as np
import pytest
from formulas import voc_average_precision
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from univip_mm.evaluation.metrics import (
    balanced_accuracy,
    chance_average_precision,
    interpolated_ap,
)


@pytest.mark.parametrize('seed', range(5))
def test_interpolated_ap_matches_pascal_voc(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(40) < 0.3).astype(int)
    scores = rng.normal(size=40) + labels
    assert interpolated_ap(labels, scores) == pytest.approx(
        voc_average_precision(labels, scores))


def test_interpolated_ap_excludes_ignored_labels():
    labels = np.array([1, -1, 0, 1, -1])
    scores = np.array([3., 9., 1., 2., -9.])
    assert interpolated_ap(labels, scores) == 1


def test_interpolated_ap_of_absent_class_is_nan():
    assert np.isnan(interpolated_ap(np.zeros(3), np.arange(3.)))


@pytest.mark.parametrize('number, positive', [(2, 1), (5, 1), (6, 3), (7, 6)])
def test_chance_ap_is_mean_over_all_rankings(number, positive):
    label = np.arange(number) < positive
    orders = itertools.combinations(range(number), positive)
    expected = np.mean([
        average_precision_score(np.isin(np.arange(number), order),
                                -np.arange(number)) for order in orders
    ])
    chance = chance_average_precision(label[:, None])
    assert chance == pytest.approx(expected)
    assert chance > positive / number


def test_balanced_accuracy_matches_sklearn():
    rng = np.random.default_rng(0)
    labels, predictions = rng.random((2, 50, 3)) < 0.3
    expected = [
        balanced_accuracy_score(x, y) for x, y in zip(labels.T, predictions.T)
    ]
    assert np.allclose(balanced_accuracy(labels, predictions), expected)
