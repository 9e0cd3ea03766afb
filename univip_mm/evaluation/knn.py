"""Multi-label scores by a vote of the nearest neighbours."""
import torch

from ..models.l2_normalize import l2_normalize

# Similarities held at a time: 64 MiB in float32.
_LARGEST_CHUNK = 2**24


@torch.no_grad()
def knn_scores(features: torch.Tensor,
               labels: torch.Tensor,
               queries: torch.Tensor,
               k: int = 20,
               temperature: float = 0.07) -> torch.Tensor:
    """Weighted mean of the labels of each query's nearest neighbours.

    The k features of largest cosine similarity s vote with the weights
    exp(s / temperature), as in instance discrimination (Wu et al. 2018,
    https://arxiv.org/abs/1805.01978, Sec. 3.4) and DINO
    (https://arxiv.org/abs/2104.14294). There the votes of a class are summed;
    here they are divided by the sum of all weights, since a label is compared
    between images, and so a score is the neighbours' share that has it.

    The queries are taken in chunks: beside the arguments and the result, the
    memory grows with N alone. Of several features that are equally near, any
    may be among the k.

    Args:
        features (Tensor): Of the labelled images, (N, C), N >= 1.
        labels (Tensor): 1 where an image has a label, otherwise 0, (N, L).
        queries (Tensor): Features of the images to score, (M, C).
        k (int): Number of neighbours; where it is above N, all N vote.
            Defaults to 20.
        temperature (float): Of the weights, > 0. Defaults to 0.07.

    Returns:
        Tensor: Scores in [0, 1], (M, L), float32, or float64 where the
        features are, on the device of the features.

    Raises:
        ValueError: ``k`` is below 1, or ``temperature`` not above 0.
    """
    if k < 1:
        raise ValueError(f'knn_scores: k is {k}, but at least one neighbour '
                         'has to vote: give k >= 1')
    if not temperature > 0:
        raise ValueError(f'knn_scores: temperature is {temperature}, but must '
                         'be above 0; the papers take 0.07')
    features = l2_normalize(features)
    queries = l2_normalize(queries.to(features))
    labels = labels.to(features)
    k = min(k, len(features))
    scores = [labels.new_zeros(0, labels.shape[1])]
    for chunk in queries.split(max(_LARGEST_CHUNK // len(features), 1)):
        similarity, nearest = (chunk @ features.T).topk(k)
        weights = torch.zeros(
            len(chunk), len(features), dtype=chunk.dtype, device=chunk.device)
        weights.scatter_(1, nearest, (similarity / temperature).softmax(1))
        scores.append(weights @ labels)
    # The weights add up to one but for rounding.
    return torch.cat(scores).clamp_(max=1)


# Similarities held at a time: 512 MiB in float32.
_LARGEST_CLASS_CHUNK = 2**27


@torch.no_grad()
def knn_predict(features: torch.Tensor,
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
    features = l2_normalize(features)
    queries = l2_normalize(queries.to(features))
    labels = labels.to(features.device)
    k = min(k, len(features))
    votes = [features.new_zeros(0, num_classes)]
    for chunk in queries.split(max(_LARGEST_CLASS_CHUNK // len(features), 1)):
        similarity, nearest = (chunk @ features.T).topk(k)
        weights = (similarity / temperature).softmax(1)
        votes.append(
            features.new_zeros(len(chunk), num_classes).scatter_add_(
                1, labels[nearest], weights))
    return torch.cat(votes)
