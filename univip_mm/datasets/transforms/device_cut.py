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
        pixels (np.ndarray): The image (h, w, 3) uint8.
        scale (tuple[float, float]): Width and height of ``pixels`` divided
            by those of the image that the boxes refer to.
        views (Sequence): Box, xyxy, and side of each view, pixels.

    Returns:
        list[Tensor]: The part (h, w, 3) uint8, a view of ``pixels`` if
        possible, and (V, 5) int64: box within the part, and side of the view.
    """
    scale_x, scale_y = scale
    if scale != (1, 1):
        views = [((round(x1 * scale_x), round(y1 * scale_y),
                   round(x2 * scale_x), round(y2 * scale_y)), size)
                 for (x1, y1, x2, y2), size in views]
    # Without NumPy, this takes a third of the time.
    left, top, _, _ = map(min, zip(*(box for box, _ in views)))
    _, _, right, bottom = map(max, zip(*(box for box, _ in views)))
    table = [(x1 - left, y1 - top, x2 - left, y2 - top, size)
             for (x1, y1, x2, y2), size in views]
    part = pixels[top:bottom, left:right]
    if not part.flags.writeable:  # PyTorch has no read-only tensors
        part = part.copy()
    return [torch.from_numpy(part), torch.from_numpy(np.array(table))]


def undecoded_sample(file: bytes,
                     views: Sequence[tuple[Box, int]]) -> list[Tensor]:
    """Return a JPEG file and the boxes of its views, for the device.

    Returns:
        list[Tensor]: The file (length,) uint8 and (V, 5) int64: box within
        the image, and side of the view.
    """
    # A copy: PyTorch warns of read-only memory.
    data = np.frombuffer(file, np.uint8).copy()
    table = np.array([(*box, size) for box, size in views])
    return [torch.from_numpy(data), torch.from_numpy(table)]
