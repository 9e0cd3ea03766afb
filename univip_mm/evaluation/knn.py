"""Weighted k-nearest-neighbour classifiers on frozen features."""
from collections.abc import Iterator

import torch

from ..models.l2_normalize import l2_normalize

# Similarities computed at a time. knn_scores needs a second matrix of the same
# size, for the weights.
_SCORES_CHUNK = 2**24  # 64 MiB in float32
_PREDICT_CHUNK = 2**27  # 512 MiB in float32


@torch.no_grad()
def knn_scores(train_features: torch.Tensor, train_labels: torch.Tensor,
               test_features: torch.Tensor, k: int = 20,
               temperature: float = 0.07) -> torch.Tensor:
    """Return multi-label scores from a weighted k-NN vote.

    The k train images with the largest cosine similarity s vote with weights
    exp(s / temperature), as in instance discrimination (Wu et al. 2018,
    https://arxiv.org/abs/1805.01978, Sec. 3.4) and DINO
    (https://arxiv.org/abs/2104.14294). A score is the weighted share of the
    neighbours with the label: unlike the sum of the papers, which compares the
    classes of one image, the share is comparable between images.

    Test images are processed in chunks, so the extra memory grows with N
    only. The choice between equally similar train images is arbitrary.

    Args:
        train_features (Tensor): Features of the train images, (N, C), N >= 1.
        train_labels (Tensor): 1 if the image has the label, else 0, (N, L).
        test_features (Tensor): Features of the test images, (M, C).
        k (int): Number of neighbours, limited to N. Defaults to 20.
        temperature (float): Temperature of the weights, > 0. Defaults to 0.07.

    Returns:
        Tensor: Scores in [0, 1], (M, L), on the device of the train features.
        The dtype is float32, or float64 for float64 features.

    Raises:
        ValueError: ``k`` is below 1, or ``temperature`` is not above 0.
    """
    train_features = l2_normalize(train_features)
    train_labels = train_labels.to(train_features)
    scores = [train_labels.new_zeros(0, train_labels.shape[1])]
    for nearest, weights in _neighbours(train_features, test_features, k,
                                       temperature, _SCORES_CHUNK):
        dense = weights.new_zeros(len(weights), len(train_features))
        scores.append(dense.scatter_(1, nearest, weights) @ train_labels)
    # Rounding can push the sum of the weights above 1.
    return torch.cat(scores).clamp_(max=1)


@torch.no_grad()
def knn_predict(train_features: torch.Tensor, train_labels: torch.Tensor,
                test_features: torch.Tensor, num_classes: int, k: int = 200,
                temperature: float = 0.07) -> torch.Tensor:
    """Return single-label class probabilities from a weighted k-NN vote.

    Equals :func:`knn_scores` for one-hot labels, but does not build their
    (N, L) matrix, which is too large for ImageNet. The defaults are those of
    instance discrimination (https://arxiv.org/abs/1805.01978, Sec. 3.4).

    Args:
        train_features (Tensor): Features of the train images, (N, C), N >= 1.
        train_labels (Tensor): Class indices of the train images, (N,).
        test_features (Tensor): Features of the test images, (M, C).
        num_classes (int): Number of classes L.
        k (int): Number of neighbours, limited to N. Defaults to 200.
        temperature (float): Temperature of the weights, > 0. Defaults to 0.07.

    Returns:
        Tensor: Share of the votes for each class, (M, L), with the device and
        dtype of the scores of :func:`knn_scores`.

    Raises:
        ValueError: ``k`` is below 1, or ``temperature`` is not above 0.
    """
    train_features = l2_normalize(train_features)
    train_labels = train_labels.to(train_features.device)
    votes = [train_features.new_zeros(0, num_classes)]
    for nearest, weights in _neighbours(train_features, test_features, k,
                                       temperature, _PREDICT_CHUNK):
        votes.append(weights.new_zeros(len(weights), num_classes).scatter_add_(
            1, train_labels[nearest], weights))
    return torch.cat(votes)


def _neighbours(train_features: torch.Tensor, test_features: torch.Tensor,
               k: int, temperature: float, chunk_size: int
               ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield indices and vote weights of the neighbours, both (chunk, k).

    ``train_features`` are already normalized. The weights of a test image sum
    to one. A chunk has at most ``chunk_size`` similarities.
    """
    if k < 1:
        raise ValueError(f'k-NN: k is {k}, but at least one neighbour has to '
                         'vote: set k >= 1')
    if not temperature > 0:
        raise ValueError(f'k-NN: temperature is {temperature}, but must be '
                         'above 0: the papers use 0.07')
    test_features = l2_normalize(test_features.to(train_features))
    k = min(k, len(train_features))
    rows = max(chunk_size // len(train_features), 1)
    for chunk in test_features.split(rows):
        similarity, nearest = (chunk @ train_features.T).topk(k)
        yield nearest, (similarity / temperature).softmax(1)
