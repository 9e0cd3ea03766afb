"""The losses as in the formulas: NumPy, loops, float64."""
import numpy as np
from scipy.special import logsumexp


def instance_loss(o, t, scene_o, scene_t, epsilon=0.1, num_iters=50):
    """Return L_ii, the mean over the images.

    o and t have the shape (B, K, C), the scenes (B, C).
    """
    total = 0.
    for image in range(len(o)):
        k = len(o[image])
        cos = np.zeros((k, k))
        for m in range(k):
            for n in range(k):
                cos[m, n] = o[image][m] @ t[image][n] / (
                    np.sqrt(o[image][m] @ o[image][m]) *
                    np.sqrt(t[image][n] @ t[image][n]))
        b = np.array([max(o[image][m] @ scene_t[image], 0) for m in range(k)])
        a = np.array([max(t[image][n] @ scene_o[image], 0) for n in range(k)])
        b = b / b.sum() if b.sum() > 0 else np.full(k, 1 / k)
        a = a / a.sum() if a.sum() > 0 else np.full(k, 1 / k)
        g = np.exp(-(1 - cos) / epsilon)
        u = np.ones(k)
        for _ in range(num_iters):
            v = a / (g.T @ u)
            u = b / (g @ v)
        plan = np.diag(u) @ g @ np.diag(v)
        total -= (cos * plan).sum()
    return total / len(o)


def transport(cost, supply, demand, epsilon, num_iters):
    """Return the plan (M, N) of one problem by Sinkhorn on logarithms."""
    exponent = -np.asarray(cost, np.float64) / epsilon
    with np.errstate(divide='ignore'):  # log(0) = -inf
        log_b, log_a = np.log(supply), np.log(demand)
    log_u = np.zeros(len(log_b))
    for _ in range(num_iters):
        log_v = log_a - logsumexp(exponent + log_u[:, None], axis=0)
        log_u = log_b - logsumexp(exponent + log_v[None, :], axis=1)
    return np.exp(exponent + log_u[:, None] + log_v[None, :])


def voc_average_precision(labels, scores):
    """Compute AP with Pascal VOC's loop (VOCap of the devkit, since 2010)."""
    order = np.argsort(-scores)
    correct = labels[order] == 1
    recall = np.concatenate([[0], correct.cumsum() / correct.sum(), [1]])
    precision = np.concatenate(
        [[0], correct.cumsum() / np.arange(1, len(correct) + 1), [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in steps)
