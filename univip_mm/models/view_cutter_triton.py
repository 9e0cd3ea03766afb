"""Bicubic cutting of views as one Triton kernel.

Import this module only when the kernel is needed: Triton may be missing, and
its import is slow.
"""
import torch
import triton
from torch import Tensor
from triton import language as tl


@triton.jit
def _weight(t, K: tl.constexpr):
    """Return the weight of tap K for the share t, a = -0.75."""
    before = ((-0.75 * (t + 1) + 3.75) * (t + 1) - 6.0) * (t + 1) + 3.0
    left = (1.25 * t - 2.25) * t * t + 1
    u = 1 - t
    right = (1.25 * u - 2.25) * u * u + 1
    if K == 0:
        weight = before
    elif K == 1:
        weight = left
    elif K == 2:
        weight = right
    else:
        weight = 1 - before - left - right
    return weight


@triton.jit
def _cut_kernel(pixels, table, views, SIZE: tl.constexpr,
                BLOCK: tl.constexpr):
    view = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_view = at < SIZE * SIZE
    row = table + view * 8
    base, row_step = tl.load(row), tl.load(row + 1)
    column_step, channel_step = tl.load(row + 2), tl.load(row + 3)
    x1, y1 = tl.load(row + 4), tl.load(row + 5)
    width, height = tl.load(row + 6) - x1, tl.load(row + 7) - y1
    # As in view_cutter: positions in float64.
    x_ratio = width.to(tl.float64) / SIZE
    y_ratio = height.to(tl.float64) / SIZE
    x = (((at % SIZE).to(tl.float64) + 0.5) * x_ratio - 0.5).to(tl.float32)
    y = (((at // SIZE).to(tl.float64) + 0.5) * y_ratio - 0.5).to(tl.float32)
    x_first, y_first = tl.floor(x), tl.floor(y)
    x_share, y_share = x - x_first, y - y_first
    x_first, y_first = x_first.to(tl.int64), y_first.to(tl.int64)
    for channel in tl.static_range(3):
        total = tl.zeros((BLOCK, ), tl.float32)
        for i in tl.static_range(4):
            ys = tl.minimum(tl.maximum(y_first + (i - 1), 0), height - 1) + y1
            line = tl.zeros((BLOCK, ), tl.float32)
            for j in tl.static_range(4):
                xs = tl.minimum(
                    tl.maximum(x_first + (j - 1), 0), width - 1) + x1
                value = tl.load(
                    pixels + base + channel * channel_step + ys * row_step
                    + xs * column_step, in_view, 0)
                line += _weight(x_share, j) * value.to(tl.float32)
            total += _weight(y_share, i) * line
        # Adding 1.5 * 2**23 rounds to the even integer, as torch.round().
        total = (total + 12582912.0) - 12582912.0
        total = tl.minimum(tl.maximum(total, 0.0), 255.0)
        tl.store(views + (view * 3 + channel) * SIZE * SIZE + at,
                 total.to(tl.uint8), in_view)


def cut(pixels: Tensor, table: Tensor, size: int) -> Tensor:
    """Cut boxes out of images: :func:`~.view_cutter.cut_views`."""
    pixels, table = pixels.contiguous(), table.contiguous()
    views = pixels.new_empty(len(table), 3, size, size)
    block = 256
    with torch.cuda.device_of(pixels):  # no effect on the CPU (interpreter)
        _cut_kernel[(len(table), triton.cdiv(size * size, block))](
            pixels, table, views, size, block, num_warps=4)
    return views
