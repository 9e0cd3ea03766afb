"""Effective rank of features, a measure of collapse without labels."""
import torch
from torch import Tensor

#: Added to each share, as in RankMe.
EPSILON = 1e-7


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Compute the effective rank of features, RankMe's estimate.

    The rank is the exponential of the entropy of the singular values s:
    exp(-sum_k p_k log p_k) with p_k = s_k / sum(s) + 1e-7 (RankMe,
    https://arxiv.org/abs/2210.02885, Eq. 1 and 2). It is 1 if all features
    have one direction, and min(N, C) if all singular values are equal. The
    features are not centered.

    The computation is in float64 on the CPU, from the eigenvalues of the
    smaller of the two Gram matrices.

    Args:
        features (Tensor): Features (N, C), one row per image.

    Returns:
        float: Effective rank, from 1 to min(N, C); 0 if all features are 0;
        NaN if a feature is not finite.
    """
    x = features.cpu().double()
    if not x.isfinite().all():
        return float('nan')
    # The rank does not depend on the scale, and squares must not overflow.
    x = x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
    gram = x.T @ x if x.shape[0] > x.shape[1] else x @ x.T
    values = torch.linalg.eigvalsh(gram)
    # Smaller eigenvalues are rounding errors.
    limit = len(values) * torch.finfo(x.dtype).eps * values[-1]
    singular = values.where(values > limit, torch.zeros(())).sqrt()
    if not singular.any():
        return 0.
    shares = singular / singular.sum() + EPSILON
    return (-(shares * shares.log()).sum()).exp().item()
