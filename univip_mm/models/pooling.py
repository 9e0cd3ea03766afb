"""Pooled features of the outputs of a backbone."""
from typing import Any

from torch import Tensor


def last_output(outputs: Any) -> Tensor:
    """Return the last tensor of nested tuples or lists, or the tensor itself.

    The host's ResNet returns a tuple of maps, and MMSelfSup's ViT pairs of a
    map and the class token.
    """
    while isinstance(outputs, (tuple, list)):
        outputs = outputs[-1]
    return outputs


def pool(outputs: Any) -> Tensor:
    """Average the last output (B, C, H, W) over its positions.

    Another shape, such as the features (B, C) of a ViT, is returned as it is.
    """
    last = last_output(outputs)
    return last.mean((2, 3)) if last.ndim == 4 else last
