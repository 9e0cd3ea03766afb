"""Cut and resize views out of images, on the training device."""
import logging
from collections.abc import Sequence
from itertools import groupby
from typing import Optional

import torch
from mmengine.logging import print_log
from torch import Tensor

# Columns of a table of views.
BASE, ROW, COLUMN, CHANNEL, X1, Y1, X2, Y2 = range(8)
# Values that are computed at once, with indices of 8 bytes each.
_CHUNK_VALUES = dict(cpu=2**18, other=2**24)
_A = -0.75  # coefficient of OpenCV's bicubic interpolation

_kernel_failed = False


def cut_batch(pixels: Tensor, table: Tensor,
              sizes: Sequence[int]) -> list[Tensor]:
    """Cut all views of a batch; views of equal size are cut together.

    Args:
        pixels (Tensor): Values of all images, (total,) uint8.
        table (Tensor): (B, V, 8) int64, one row per view, as in
            :func:`cut_views`.
        sizes (Sequence[int]): Sides of the V views, pixels.

    Returns:
        list[Tensor]: V batches (B, 3, size, size) uint8.
    """
    views: list[Tensor] = []
    start = 0
    for size, group in groupby(sizes):
        end = start + len(list(group))
        part = table[:, start:end].transpose(0, 1).reshape(-1, 8)
        views += cut_views(pixels, part, size).split(len(table))
        start = end
    return views


def cut_views(pixels: Tensor, table: Tensor, size: int) -> Tensor:
    """Cut boxes out of images and resize them, bicubic, as OpenCV does.

    Like ``cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)``,
    without antialiasing, and without a pixel outside of the box. OpenCV
    rounds its weights: of photographs, one value in 17,000 differs by one
    level. No value is read on the host. On a GPU, one Triton kernel cuts all
    views; without Triton, PyTorch operations do.

    Args:
        pixels (Tensor): Values of all images, (total,) uint8.
        table (Tensor): One row per view, (N, 8) int64: position in ``pixels``
            of the image's first value; steps to the next row, column and
            channel; box x1, y1, x2, y2 in pixels of the image, x2 and y2
            outside.
        size (int): Side of the views, pixels.

    Returns:
        Tensor: The views (N, 3, size, size) uint8.
    """
    if pixels.is_cuda and len(table):
        views_of_kernel = _cut_by_kernel(pixels, table, size)
        if views_of_kernel is not None:
            return views_of_kernel
    limit = _CHUNK_VALUES['cpu' if pixels.device.type == 'cpu' else 'other']
    chunk = max(1, limit // (3 * size * size))
    views = [_cut(pixels, part, size) for part in table.split(chunk)]
    return views[0] if len(views) == 1 else torch.cat(views)


def _cut_by_kernel(pixels: Tensor, table: Tensor,
                   size: int) -> Optional[Tensor]:
    """Cut by the Triton kernel; return None if the kernel fails."""
    global _kernel_failed
    if _kernel_failed:
        return None
    try:
        from .view_cutter_triton import cut
        return cut(pixels, table, size)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as e:  # Triton raises errors of many types
        _kernel_failed = True
        print_log(
            f'cut_views: the Triton kernel failed ({type(e).__name__}: {e}). '
            'PyTorch operations are used, which are slower. To use the Triton '
            'kernel, install the package triton, a C compiler (gcc) and the '
            'headers of Python (python3-dev)',
            logger='current', level=logging.WARNING)
    return None


def _cut(pixels: Tensor, table: Tensor, size: int) -> Tensor:
    x, x_weights = _taps(table[:, X1], table[:, X2], size)
    y, y_weights = _taps(table[:, Y1], table[:, Y2], size)
    channels = torch.arange(3, device=pixels.device) * table[:, CHANNEL, None]
    # Positions (N, 4, 3, size, 1) and (N, 4, 1, 1, size).
    y = (y * table[:, ROW, None, None] + table[:, BASE, None, None]
         )[:, :, None, :, None] + channels[:, None, :, None, None]
    x = (x * table[:, COLUMN, None, None])[:, :, None, None]
    y_weights = y_weights[:, :, None, :, None]
    x_weights = x_weights[:, :, None, None]
    result = torch.zeros((), device=pixels.device)
    for i in range(4):
        line = torch.zeros((), device=pixels.device)
        for j in range(4):
            line = line + x_weights[:, j] * pixels[y[:, i] + x[:, j]]
        result = result + y_weights[:, i] * line
    return result.round().clamp(0, 255).to(torch.uint8)


def _taps(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return positions (N, 4, size) int64 and weights, float32, on an axis.

    A view's pixel is a weighted sum of four pixels of the image. Positions
    outside of the box, [low, high), are moved to its border.
    """
    length = (high - low)[:, None]
    at = torch.arange(size, device=low.device, dtype=torch.float64) + 0.5
    at = (at * (length.double() / size) - 0.5).float()
    first = at.floor()
    t = at - first
    weights = _weights(t)
    offsets = torch.arange(-1, 3, device=low.device)[:, None]
    positions = first.long()[:, None] + offsets
    last = (length - 1)[:, None]
    positions = torch.minimum(positions.clamp(min=0), last)
    return positions + low[:, None, None], weights


def _weights(t: Tensor) -> Tensor:
    """Return the four weights (N, 4, size) of the share ``t`` (N, size)."""
    before = ((_A * (t + 1) - 5 * _A) * (t + 1) + 8 * _A) * (t + 1) - 4 * _A
    left = ((_A + 2) * t - (_A + 3)) * t * t + 1
    u = 1 - t
    right = ((_A + 2) * u - (_A + 3)) * u * u + 1
    return torch.stack([before, left, right, 1 - before - left - right], 1)
