"""Linear SVMs on frozen features: the benchmark on Pascal VOC 2007.

Protocol: Goyal et al. 2019 (https://arxiv.org/abs/1905.01235, Sec. 6.1 and
6.2), as in the common scripts of OpenSelfSup, ORL and MMSelfSup: L2-normalized
features, one SVM per class, class weight 2 for positives, and interpolated
average precision.
"""
from collections.abc import Sequence

import numpy as np

from .metrics import ABSENT, PRESENT, interpolated_ap

COSTS = (1.0, 10.0, 100.0)  # from ORL's eval_svm_full.sh
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)


def svm_average_precision(
        train_features: np.ndarray, train_labels: np.ndarray,
        test_features: np.ndarray, test_labels: np.ndarray,
        costs: Sequence[float] = COSTS, n_jobs: int = 1) -> np.ndarray:
    """Return the average precision of a linear SVM for each class.

    The cost of a class is the one with the best average precision in 3-fold
    cross-validation on the train images. Ignored labels count as absent in
    training and are excluded from the test score.

    Args:
        train_features (np.ndarray): (N, C).
        train_labels (np.ndarray): 1 present, 0 absent, -1 ignored, (N, L).
            Each class needs at least 3 images with it and 3 without it.
        test_features (np.ndarray): (M, C).
        test_labels (np.ndarray): Same values as ``train_labels``, (M, L).
        costs (Sequence[float]): Candidate costs. Defaults to (1, 10, 100).
        n_jobs (int): Number of processes; -1 uses all cores. Defaults to 1.

    Returns:
        np.ndarray: (L,), in [0, 1]; NaN for a class without test images.

    Raises:
        ValueError: A class has too few images for cross-validation.
    """
    from joblib import Parallel, delayed
    present = train_labels == PRESENT
    few = np.minimum(present.sum(axis=0), (~present).sum(axis=0)) < 3
    if few.any():
        raise ValueError(
            f'{few.sum()} of {len(few)} classes have fewer than 3 training '
            'images with the class or without it, but 3-fold cross-validation '
            'needs 3: add images or remove these classes')
    train, test = _l2_normalize(train_features), _l2_normalize(test_features)
    return np.array(Parallel(n_jobs)(
        delayed(_cross_validated_ap)(train, present[:, i], test,
                                     test_labels[:, i], costs)
        for i in range(present.shape[1])))


def low_shot_average_precision(
        train_features: np.ndarray, train_labels: np.ndarray,
        test_features: np.ndarray, test_labels: np.ndarray,
        shots: Sequence[int] = SHOTS, samples: int = 5,
        costs: Sequence[float] = COSTS, seed: int = 0,
        n_jobs: int = 1) -> dict[int, float]:
    """Return the mean average precision for k train images per class.

    Each of ``samples`` independent subsets of a class has k images with the
    class and (L - 1) k images without it. The result for k is the mean over
    subsets and classes at the best cost. The protocol chooses the cost on the
    test images, which inflates the results of all methods.

    ``shots`` are the values of k, and ``seed`` selects the subsets. The other
    arguments are the same as for :func:`svm_average_precision`.

    Returns:
        dict[int, float]: Mean average precision for each k, in [0, 1].

    Raises:
        ValueError: A class has too few images with it or without it.
    """
    from joblib import Parallel, delayed
    train, test = _l2_normalize(train_features), _l2_normalize(test_features)
    rng = np.random.default_rng(seed)
    classes = train_labels.shape[1]
    subsets = [(i, _sample(train_labels[:, i], k, (classes - 1) * k, rng))
               for k in shots for _ in range(samples) for i in range(classes)]
    scores = Parallel(n_jobs)(
        delayed(_ap_by_cost)(train[rows], train_labels[rows, i] == PRESENT,
                             test, test_labels[:, i], costs)
        for i, rows in subsets)
    means = np.nanmean(np.reshape(
        scores, (len(shots), samples * classes, len(costs))), axis=1)
    return {k: float(mean.max()) for k, mean in zip(shots, means)}


def _cross_validated_ap(train, present, test, test_labels, costs) -> float:
    from sklearn.model_selection import cross_val_score
    best = max(costs, key=lambda cost: cross_val_score(
        _linear_svm(cost), train, present, cv=3,
        scoring='average_precision').mean())
    return _ap_by_cost(train, present, test, test_labels, [best])[0]


def _ap_by_cost(train, present, test, test_labels, costs) -> list[float]:
    classifiers = [_linear_svm(cost).fit(train, present) for cost in costs]
    return [interpolated_ap(test_labels, classifier.decision_function(test))
            for classifier in classifiers]


def _linear_svm(cost: float):
    from sklearn.svm import LinearSVC
    # Values of the common scripts. The seed is for the order of the images.
    return LinearSVC(C=cost, class_weight={True: 2, False: 1}, dual=True,
                     max_iter=2000, random_state=0)


def _sample(labels: np.ndarray, num_present: int, num_absent: int,
            rng: np.random.Generator) -> np.ndarray:
    """Return random row indices: first present, then absent images."""
    rows = []
    for value, number in ((PRESENT, num_present), (ABSENT, num_absent)):
        found = np.flatnonzero(labels == value)
        if len(found) < number:
            what = 'with' if value == PRESENT else 'without'
            raise ValueError(
                f'low-shot SVM needs {number} training images {what} a '
                f'class, but there are {len(found)}: add images or use fewer '
                'shots')
        rows.append(rng.choice(found, number, replace=False))
    return np.concatenate(rows)


def _l2_normalize(features: np.ndarray) -> np.ndarray:
    # The epsilon is part of the protocol; zero vectors stay zero.
    features = np.asarray(features, np.float64)
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
