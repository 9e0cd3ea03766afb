"""Metrics of multi-label classification."""
import numpy as np

# Values of labels that can be ignored, as in Pascal VOC.
ABSENT, PRESENT, IGNORED = 0, 1, -1


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, without interpolation.

    Images with equal scores share one rank.

    Args:
        labels (np.ndarray): (M, L), bool.
        scores (np.ndarray): (M, L).
    """
    # Slow to import, and not needed for training.
    from sklearn.metrics import average_precision_score
    return np.array([average_precision_score(*column)
                     for column in zip(labels.T, scores.T)])


def interpolated_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the interpolated average precision of one class (Pascal VOC).

    This is the area under the precision-recall curve after raising each
    precision to the maximum precision at any higher recall. The result is NaN
    if no image has the class.

    Args:
        labels (np.ndarray): 1 present, 0 absent, -1 ignored, (M,).
        scores (np.ndarray): (M,).
    """
    from sklearn.metrics import precision_recall_curve
    if not (labels == PRESENT).any():
        return float('nan')
    kept = labels != IGNORED
    # Sorted by decreasing recall, from 1 to 0.
    precision, recall, _ = precision_recall_curve(labels[kept], scores[kept])
    raised = np.maximum.accumulate(precision)
    return float(-(np.diff(recall) * raised[:-1]).sum())


def chance_average_precision(labels: np.ndarray) -> np.ndarray:
    """Return the expected average precision of each class for random scores.

    An image of the class at rank i has the expected precision
    (1 + (i - 1) (R - 1) / (M - 1)) / i for R of M images with the class. The
    mean over the ranks is (H + (M - H) (R - 1) / (M - 1)) / M, with H the
    M-th harmonic number. The result exceeds the share R / M; the difference
    is larger for fewer images.

    Args:
        labels (np.ndarray): (M, L), bool, M >= 2. Each class needs an image.
    """
    number = len(labels)
    harmonic = (1 / np.arange(1, number + 1)).sum()
    others = (labels.sum(axis=0) - 1) / (number - 1)
    return (harmonic + (number - harmonic) * others) / number


def balanced_accuracy(labels: np.ndarray, predictions: np.ndarray
                      ) -> np.ndarray:
    """Return the mean of sensitivity and specificity of each class.

    Constant predictions get 0.5.

    Args:
        labels (np.ndarray): True labels, (M, L), bool. Each class is present
            in some, but not all images.
        predictions (np.ndarray): Predicted labels, (M, L), bool.
    """
    sensitivity = (labels & predictions).sum(axis=0) / labels.sum(axis=0)
    specificity = (~labels & ~predictions).sum(axis=0) / (~labels).sum(axis=0)
    return (sensitivity + specificity) / 2
