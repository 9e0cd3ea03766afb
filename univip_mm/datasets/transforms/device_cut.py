"""Samples whose views the training device cuts."""
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .box_sampling import Box


def uncut_sample(pixels: np.ndarray, scale: tuple[float, float],
                 views: Sequence[tuple[Box, int]]) -> list[Tensor]:
    """Return the part of an image that the views need, and their boxes.

    Args:
        pixels (np.ndarray): The image (h, w, 3) uint8. The result is a copy.
        scale (tuple[float, float]): Width and height of ``pixels`` divided
            by those of the image that the boxes refer to.
        views (Sequence): Box, xyxy, and side of each view, pixels.

    Returns:
        list[Tensor]: The part (h, w, 3) uint8 and (V, 5) int64: box within
        the part, and side of the view.
    """
    table = np.array([[*box, size] for box, size in views])
    if scale != (1, 1):
        table[:, :4] = np.rint(table[:, :4] * (*scale, *scale))
    x1, y1 = table[:, :2].min(axis=0)
    x2, y2 = table[:, 2:4].max(axis=0)
    table[:, :4] -= (x1, y1, x1, y1)
    # The pixels can be read-only, which PyTorch's tensors cannot.
    part = pixels[y1:y2, x1:x2].copy()
    return [torch.from_numpy(part), torch.from_numpy(table)]


def undecoded_sample(file: bytes,
                     views: Sequence[tuple[Box, int]]) -> list[Tensor]:
    """Return a JPEG file and the boxes of its views, for the device.

    Returns:
        list[Tensor]: The file (length,) uint8 and (V, 5) int64: box within
        the image, and side of the view.
    """
    table = np.array([[*box, size] for box, size in views])
    # A copy: PyTorch warns of read-only memory.
    data = np.frombuffer(file, np.uint8).copy()
    return [torch.from_numpy(data), torch.from_numpy(table)]
