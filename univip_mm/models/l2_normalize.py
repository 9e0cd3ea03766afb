"""L2 normalization with a finite gradient for every finite input."""
import torch
from torch import Tensor

# Vectors whose entries are all below this threshold count as zero and get no
# gradient. The gradient of other vectors is at most the inverse. 1e-8 is the
# default of torch.nn.functional.cosine_similarity. float16 ends at 65504 and
# needs a larger threshold.
_ZERO_THRESHOLD = {torch.float16: 1e-4}


def at_least_float32(x: Tensor) -> Tensor:
    """Convert to float32. float64 stays float64."""
    return x if x.dtype == torch.float64 else x.float()


def l2_normalize(x: Tensor) -> Tensor:
    """Scale vectors (..., C) to length 1, in float32 or float64.

    The result equals :func:`torch.nn.functional.normalize`, but cannot
    overflow or underflow: each vector is divided by its largest entry before
    it is squared. A zero vector stays zero and gets no gradient. Without this
    rule, a loss that normalizes again, as the host's does, would give a zero
    vector a gradient of 1e12, too large for half precision.
    """
    threshold = _ZERO_THRESHOLD.get(x.dtype, 1e-8)
    x = at_least_float32(x)
    # A constant for the gradient: the direction does not depend on the scale.
    scale = x.detach().abs().amax(dim=-1, keepdim=True)
    x = torch.where(scale < threshold, x.detach(), x)
    x = x / scale.clamp_min(threshold)
    # The largest entry is now 1, so the norm is at least 1, except for
    # vectors below the threshold.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.clamp_min(1.0)
