import numpy as np
import pytest
from sklearn.svm import LinearSVC

from univip_mm.evaluation.svm import (
    falling_average_precision,
    low_shot_average_precision,
    svm_average_precision,
    unit_length,
)


def voc_average_precision(answers, scores):
    """Pascal VOC's own loop (VOCap of its development kit, 2010 on)."""
    order = np.argsort(-scores)
    right = answers[order] == 1
    recall = np.concatenate([[0], right.cumsum() / right.sum(), [1]])
    precision = np.concatenate(
        [[0], right.cumsum() / np.arange(1, len(right) + 1), [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in steps)


def separable(number, classes=3, seed=0):
    """Features whose first columns tell the classes, and the labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((number, classes)) < 0.4).astype(int)
    features = rng.normal(scale=0.1, size=(number, classes + 4))
    features[:, :classes] += labels
    features[:, classes] += 1
    return features, labels


@pytest.mark.parametrize('seed', range(5))
def test_precision_falls_as_pascal_voc_has_it(seed):
    rng = np.random.default_rng(seed)
    answers = (rng.random(40) < 0.3).astype(int)
    scores = rng.normal(size=40) + answers
    assert falling_average_precision(answers, scores) == pytest.approx(
        voc_average_precision(answers, scores))


def test_ignored_labels_are_left_out_of_the_score():
    answers = np.array([1, -1, 0, 1, -1])
    scores = np.array([3., 9., 1., 2., -9.])
    assert falling_average_precision(answers, scores) == 1


def test_a_class_that_no_test_image_has_is_no_number():
    assert np.isnan(falling_average_precision(np.zeros(3), np.arange(3.)))


def test_what_can_be_told_apart_is():
    train, test = separable(90), separable(60, seed=1)
    assert svm_average_precision(*train, *test).min() > 0.95


# Two classes that overlap take more than the protocol's 2000 iterations.
@pytest.mark.filterwarnings('ignore:Liblinear failed to converge')
def test_features_that_say_nothing_get_the_share_of_the_class():
    features, labels = separable(90)
    queries, answers = separable(400, seed=1)
    noise = np.random.default_rng(0)
    score = svm_average_precision(
        noise.normal(size=features.shape), labels,
        noise.normal(size=queries.shape), answers)
    np.testing.assert_allclose(score, answers.mean(axis=0), atol=0.12)


def test_one_cost_is_one_machine_of_scikit_learn():
    (features, labels), (queries, answers) = separable(60), separable(50, 3, 1)
    features, queries = features + 0.3, queries - 0.2
    found = svm_average_precision(features, labels, queries, answers, [1.])
    for column in range(3):
        machine = LinearSVC(C=1., class_weight={0: 1, 1: 2}, dual=True,
                            max_iter=2000, random_state=0)
        machine.fit(unit_length(features), labels[:, column])
        assert found[column] == pytest.approx(voc_average_precision(
            answers[:, column], machine.decision_function(
                unit_length(queries))))


def test_processes_change_nothing():
    train, test = separable(40), separable(30, seed=1)
    np.testing.assert_array_equal(
        svm_average_precision(*train, *test, n_jobs=1),
        svm_average_precision(*train, *test, n_jobs=2))


def test_a_class_of_two_images_cannot_be_cross_validated():
    features, labels = separable(30)
    labels[:, 1] = 0
    labels[:2, 1] = 1
    with pytest.raises(ValueError, match='1 of 3 classes have fewer than 3'):
        svm_average_precision(features, labels, features, labels)


def test_more_shots_are_better_and_the_seed_decides():
    train, test = separable(200), separable(60, seed=1)
    found = low_shot_average_precision(*train, *test, shots=(1, 8), samples=3)
    assert list(found) == [1, 8] and found[1] < found[8] <= 1
    again = low_shot_average_precision(*train, *test, shots=(1, 8), samples=3)
    assert found == again


def test_too_few_images_for_the_shots_are_told():
    features, labels = separable(20)
    with pytest.raises(ValueError, match='fewer shots'):
        low_shot_average_precision(features, labels, features, labels, (15, ))
