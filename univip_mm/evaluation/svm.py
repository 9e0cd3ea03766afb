"""Linear support vector machines on frozen features, as the field's benchmark
on Pascal VOC 2007 has them.

Protocol: Goyal et al. 2019 (https://arxiv.org/abs/1905.01235, Sec. 6.1 and
6.2), as in the scripts that OpenSelfSup, ORL and MMSelfSup share: features of
length 1, one machine for each class, positives weighted twice, and the average
precision with the precision made to fall with the recall.
"""
from collections.abc import Sequence

import numpy as np

COSTS = (1.0, 10.0, 100.0)  # those of ORL's eval_svm_full.sh
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
ABSENT, PRESENT, IGNORED = 0, 1, -1


def svm_average_precision(features: np.ndarray,
                          labels: np.ndarray,
                          queries: np.ndarray,
                          answers: np.ndarray,
                          costs: Sequence[float] = COSTS,
                          n_jobs: int = 1) -> np.ndarray:
    """Average precision of each class. Its cost is the one with the largest
    average precision in a threefold cross validation of the training images.

    Ignored labels count as absent in training and are left out of the score.

    Args:
        features (np.ndarray): Of the training images, (N, C).
        labels (np.ndarray): 1 present, 0 absent, -1 ignored, (N, L); of each
            class, three images at least are present and three are not.
        queries (np.ndarray): Features of the test images, (M, C).
        answers (np.ndarray): As ``labels``, (M, L).
        costs (Sequence[float]): To choose from.
        n_jobs (int): Processes; -1 takes all cores.

    Returns:
        np.ndarray: (L,), in [0, 1]; NaN for a class that no test image has.

    Raises:
        ValueError: A class has too few images to cross validate.
    """
    from joblib import Parallel, delayed
    present = labels == PRESENT
    few = np.minimum(present.sum(axis=0), (~present).sum(axis=0)) < 3
    if few.any():
        raise ValueError(
            f'{few.sum()} of {len(few)} classes have fewer than 3 training '
            'images with it or without it, but a threefold cross validation '
            'needs 3: give more images, or fewer classes')
    features, queries = unit_length(features), unit_length(queries)
    return np.array(
        Parallel(n_jobs)(
            delayed(_one_class)(features, present[:, i], queries,
                                answers[:, i], costs)
            for i in range(present.shape[1])))


def _one_class(features, present, queries, answers, costs) -> float:
    from sklearn.model_selection import cross_val_score
    mean = [
        cross_val_score(
            _machine(cost), features, present, cv=3,
            scoring='average_precision').mean() for cost in costs
    ]
    machine = _machine(costs[int(np.argmax(mean))]).fit(features, present)
    return falling_average_precision(
        answers, machine.decision_function(queries))


def low_shot_average_precision(features: np.ndarray,
                               labels: np.ndarray,
                               queries: np.ndarray,
                               answers: np.ndarray,
                               shots: Sequence[int] = SHOTS,
                               samples: int = 5,
                               costs: Sequence[float] = COSTS,
                               seed: int = 0,
                               n_jobs: int = 1) -> dict[int, float]:
    """Mean average precision with k images of each class.

    Of each class, k images with it and (L - 1) k without it are drawn, in
    ``samples`` independent draws. The figure of a k is the mean over draws
    and classes at the cost that is best there: the protocol chooses it on the
    test images, which flatters every method alike.

    Args:
        features, labels, queries, answers, costs, n_jobs: See
            :func:`svm_average_precision`.
        shots (Sequence[int]): The k.
        samples (int): Draws for each k.
        seed (int): Of the draws.

    Returns:
        dict[int, float]: For each k, in [0, 1].

    Raises:
        ValueError: A class has fewer than k images with or (L - 1) k without.
    """
    from joblib import Parallel, delayed
    features, queries = unit_length(features), unit_length(queries)
    rng = np.random.default_rng(seed)
    number = labels.shape[1]
    draws = [(k, column, _draw(labels[:, column], k, (number - 1) * k, rng))
             for k in shots for _ in range(samples)
             for column in range(number)]
    scores = Parallel(n_jobs)(
        delayed(_few)(features[drawn], labels[drawn, column] == PRESENT,
                      queries, answers[:, column], costs)
        for _, column, drawn in draws)
    means = np.nanmean(
        np.reshape(scores, (len(shots), samples * number, len(costs))), axis=1)
    return {k: float(mean.max()) for k, mean in zip(shots, means)}


def _draw(column: np.ndarray, present: int, absent: int,
          rng: np.random.Generator) -> np.ndarray:
    drawn = []
    for value, number in ((PRESENT, present), (ABSENT, absent)):
        found = np.flatnonzero(column == value)
        if len(found) < number:
            what = 'with' if value == PRESENT else 'without'
            raise ValueError(
                f'{number} training images {what} a class are to be drawn, '
                f'but there are {len(found)}: give more images, or fewer '
                'shots')
        drawn.append(rng.choice(found, number, replace=False))
    return np.concatenate(drawn)


def _few(features, present, queries, answers, costs) -> list[float]:
    return [
        falling_average_precision(
            answers,
            _machine(cost).fit(features, present).decision_function(queries))
        for cost in costs
    ]


def _machine(cost: float):
    from sklearn.svm import LinearSVC
    # The scripts' values; the seed is for the order of the images.
    return LinearSVC(
        C=cost,
        class_weight={True: 2, False: 1},
        dual=True,
        max_iter=2000,
        random_state=0)


def unit_length(features: np.ndarray) -> np.ndarray:
    """Features of length 1; zero stays zero. (N, C), float64."""
    features = np.asarray(features, np.float64)
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)


def falling_average_precision(answers: np.ndarray,
                              scores: np.ndarray) -> float:
    """Area below the precision as a function of the recall, each precision
    raised to the largest at a higher recall.

    Args:
        answers (np.ndarray): 1 present, 0 absent, -1 left out, (M,).
        scores (np.ndarray): (M,).

    Returns:
        float: In [0, 1]; NaN where no image has the class.
    """
    from sklearn.metrics import precision_recall_curve
    kept = answers != IGNORED
    if not (answers == PRESENT).any():
        return float('nan')
    # Both come with the recall falling, from 1 to 0.
    precision, recall, _ = precision_recall_curve(answers[kept], scores[kept])
    raised = np.maximum.accumulate(precision)
    return float(-(np.diff(recall) * raised[:-1]).sum())
