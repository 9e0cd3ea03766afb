"""Vectors of length one, safe for every finite input."""
import torch

# A vector whose entries are all below this is taken as zero, which has no
# direction and so no gradient; that of any other is at most its inverse. 1e-8
# is the default of torch.nn.functional.cosine_similarity; a gradient of 1e8
# has no place in float16, whose largest number is 65504.
_SMALLEST = {torch.float16: 1e-4}


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32, or as it is where it already is float64."""
    return x if x.dtype == torch.float64 else x.float()


def l2_normalize(x: torch.Tensor) -> torch.Tensor:
    """Scale the vectors in the last dimension to length one.

    Equals :func:`torch.nn.functional.normalize` where that one is sound. The
    squares are taken after a division by the largest entry, so they neither
    overflow nor vanish. A zero vector stays zero and gets no gradient: a loss
    that normalises once more, as the host's does, has one of 1e12 there,
    beyond half precision. So the gradient is finite for every finite input.

    Args:
        x (Tensor): Vectors of shape (..., C), of any floating dtype.

    Returns:
        Tensor: (..., C), float32, or float64 where ``x`` is.
    """
    smallest = _SMALLEST.get(x.dtype, 1e-8)
    x = at_least_float32(x)
    # A constant to the gradient: the direction does not depend on the scale.
    scale = x.detach().abs().amax(dim=-1, keepdim=True)
    x = torch.where(scale < smallest, x.detach(), x)
    x = x / scale.clamp_min(smallest)
    # The largest entry is now one, so the norm is at least one, unless the
    # vector is shorter than `smallest`.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.clamp_min(1.0)
