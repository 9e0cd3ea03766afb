import numpy as np
import pytest
from formulas import voc_average_precision
from sklearn.svm import LinearSVC

from univip_mm.evaluation.svm import (
    low_shot_average_precision,
    svm_average_precision,
)


def l2_normalize(features):
    """Normalize as the protocol does, with an epsilon of 1e-5."""
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)


def separable(number, classes=3, seed=0):
    """Return features whose first columns show the classes, and labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((number, classes)) < 0.4).astype(int)
    features = rng.normal(scale=0.1, size=(number, classes + 4))
    features[:, :classes] += labels
    features[:, classes] += 1
    return features, labels


def test_svm_separates_separable_classes():
    train, test = separable(90), separable(60, seed=1)
    assert svm_average_precision(*train, *test).min() > 0.95


# Overlapping classes need more than the protocol's 2000 iterations.
@pytest.mark.filterwarnings('ignore:Liblinear failed to converge')
def test_svm_noise_features_score_class_share():
    features, labels = separable(90)
    test, test_labels = separable(400, seed=1)
    noise = np.random.default_rng(0)
    score = svm_average_precision(
        noise.normal(size=features.shape), labels,
        noise.normal(size=test.shape), test_labels)
    np.testing.assert_allclose(score, test_labels.mean(axis=0), atol=0.12)


def test_svm_with_one_cost_matches_sklearn():
    features, labels = separable(60)
    test, test_labels = separable(50, seed=1)
    features, test = features + 0.3, test - 0.2
    found = svm_average_precision(features, labels, test, test_labels, [1.])
    for column in range(3):
        classifier = LinearSVC(
            C=1., class_weight={0: 1, 1: 2}, dual=True, max_iter=2000,
            random_state=0)
        classifier.fit(l2_normalize(features), labels[:, column])
        assert found[column] == pytest.approx(voc_average_precision(
            test_labels[:, column], classifier.decision_function(
                l2_normalize(test))))


def test_svm_independent_of_n_jobs():
    train, test = separable(40), separable(30, seed=1)
    np.testing.assert_array_equal(
        svm_average_precision(*train, *test, n_jobs=1),
        svm_average_precision(*train, *test, n_jobs=2))


def test_svm_rejects_class_with_two_images():
    features, labels = separable(30)
    labels[:, 1] = 0
    labels[:2, 1] = 1
    with pytest.raises(ValueError, match='1 of 3 classes have fewer than 3'):
        svm_average_precision(features, labels, features, labels)


def test_low_shot_improves_with_shots_and_is_seeded():
    train, test = separable(200), separable(60, seed=1)
    found = low_shot_average_precision(*train, *test, shots=(1, 8), samples=3)
    assert list(found) == [1, 8] and found[1] < found[8] <= 1
    again = low_shot_average_precision(*train, *test, shots=(1, 8), samples=3)
    assert found == again


def test_low_shot_rejects_too_few_images():
    features, labels = separable(20)
    with pytest.raises(ValueError, match='fewer shots'):
        low_shot_average_precision(features, labels, features, labels, (15, ))
