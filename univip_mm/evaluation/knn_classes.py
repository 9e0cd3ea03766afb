"""Single-label classes by a vote of the nearest neighbours."""
import torch

from ..models.unit_vectors import unit_vectors

# Similarities held at a time: 512 MiB in float32.
_LARGEST_CHUNK = 2**27


@torch.no_grad()
def knn_classes(features: torch.Tensor,
                labels: torch.Tensor,
                queries: torch.Tensor,
                num_classes: int,
                k: int = 200,
                temperature: float = 0.07) -> torch.Tensor:
    """Votes of each query's k nearest neighbours for their classes.

    What :func:`knn_scores` gives for labels written as one of ``num_classes``
    columns, whose table of N x L does not fit for ImageNet. The defaults are
    those of instance discrimination (https://arxiv.org/abs/1805.01978,
    Sec. 3.4).

    Args:
        features (Tensor): Of the labelled images, (N, C), N >= 1.
        labels (Tensor): Their classes, (N,).
        queries (Tensor): Features of the images to classify, (M, C).
        num_classes (int): L.
        k (int): Number of neighbours; where it is above N, all N vote.
        temperature (float): Of the weights exp(s / temperature), > 0.

    Returns:
        Tensor: Shares of the votes, (M, L), of the features' type.
    """
    features = unit_vectors(features)
    queries = unit_vectors(queries.to(features))
    labels = labels.to(features.device)
    k = min(k, len(features))
    votes = [features.new_zeros(0, num_classes)]
    for chunk in queries.split(max(_LARGEST_CHUNK // len(features), 1)):
        similarity, nearest = (chunk @ features.T).topk(k)
        weights = (similarity / temperature).softmax(1)
        votes.append(
            features.new_zeros(len(chunk), num_classes).scatter_add_(
                1, labels[nearest], weights))
    return torch.cat(votes)
