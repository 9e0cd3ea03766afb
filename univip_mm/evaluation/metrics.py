"""Metrics of multi-label classification."""
import numpy as np


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class: the mean of the precision at each
    image that has it. Images of the same score rank alike.

    Args:
        labels (np.ndarray): (M, L), bool.
        scores (np.ndarray): (M, L).

    Returns:
        np.ndarray: (L,), in [0, 1].
    """
    # Slow to import, and not needed for training.
    from sklearn.metrics import average_precision_score
    return np.array([
        average_precision_score(label, score)
        for label, score in zip(labels.T, scores.T)
    ])


def chance_average_precision(labels: np.ndarray) -> np.ndarray:
    """Expected average precision of each class for a random ranking.

    For R of M images, with H the M-th harmonic number,
    (H + (M - H) (R - 1) / (M - 1)) / M: the precision expected at rank i of
    an image that has the class is (1 + (i - 1) (R - 1) / (M - 1)) / i. It is
    above the share R / M, the more so the fewer images there are.

    Args:
        labels (np.ndarray): (M, L), bool, M >= 2; each class has an image.

    Returns:
        np.ndarray: (L,), in [0, 1].
    """
    number = len(labels)
    harmonic = (1 / np.arange(1, number + 1)).sum()
    others = (labels.sum(axis=0) - 1) / (number - 1)
    return (harmonic + (number - harmonic) * others) / number


def balanced_accuracy(labels: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Balanced accuracy of each class: the mean of the shares of right
    answers among the images with and without it.

    Args:
        labels (np.ndarray): What is in the images, (M, L), bool. Each class
            is in some, but not all.
        present (np.ndarray): What is said to be in them, (M, L), bool.

    Returns:
        np.ndarray: (L,), in [0, 1]; 0.5 for a constant answer.
    """
    sensitivity = (labels & present).sum(axis=0) / labels.sum(axis=0)
    specificity = (~labels & ~present).sum(axis=0) / (~labels).sum(axis=0)
    return (sensitivity + specificity) / 2
