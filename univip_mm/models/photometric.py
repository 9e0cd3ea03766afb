"""Photometric operations on a batch with different parameters per image.

Images are RGB in [0, 1], (B, 3, H, W), on any device. Each operation equals
the torchvision operation of the same kind, applied to one image.
"""
import torch
from torch import Tensor

from .augment_params import Augmentation, AugmentParams

# Gray value of an RGB pixel: ITU-R 601-2 luma, as in torchvision and PIL.
_LUMA = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


def augment(images: Tensor, params: AugmentParams,
            augmentation: Augmentation) -> Tensor:
    """Augment images (B, 3, H, W) with the sampled parameters of each.

    The options in ``augmentation`` do not vary by image.
    """
    images = images.clone()

    def change(selected: Tensor, operation, *values: Tensor) -> None:
        # On the CPU, to avoid a GPU synchronization.
        index = selected.nonzero().squeeze(1)
        if len(index):
            on_device = index.to(images.device, non_blocking=True)
            images[on_device] = operation(
                images[on_device],
                *(value[index].to(images.device, non_blocking=True)
                  for value in values))

    change(params.flip, lambda x: x.flip(-1))
    for operations in params.order.unbind(1):
        amount = params.amount.gather(1, operations.unsqueeze(1)).squeeze(1)
        is_hue = operations == _HUE
        change(params.jitter & ~is_hue, adjust_by_blend, operations, amount)
        change(params.jitter & is_hue, adjust_hue, amount)
    change(params.gray, lambda x: to_gray(x).expand_as(x))
    change(params.blur, lambda x, sigma: gaussian_blur(
        x, sigma, augmentation.blur_kernel), params.sigma)
    threshold = augmentation.solarize_threshold
    change(params.solarize, lambda x: torch.where(x >= threshold, 1 - x, x))
    return images


def to_gray(images: Tensor) -> Tensor:
    """Convert RGB images (B, 3, H, W) to gray images (B, 1, H, W)."""
    luma = images.new_tensor(_LUMA).view(3, 1, 1)
    return (images * luma).sum(dim=1, keepdim=True)


def adjust_by_blend(images: Tensor, operation: Tensor,
                    factor: Tensor) -> Tensor:
    """Adjust brightness, contrast or saturation, one operation per image.

    Operation 0, brightness, blends an image with black; 1, contrast, with its
    mean gray value; 2, saturation, with its gray image. All three run in one
    pass, so that a GPU starts few kernels. ``operation`` and ``factor``, the
    share of the image in the blend, have the shape (B,).
    """
    factor, operation = factor.view(-1, 1, 1, 1), operation.view(-1, 1, 1, 1)
    others = to_gray(images)
    others = torch.where(
        operation == _CONTRAST, others.mean((1, 2, 3), keepdim=True), others)
    others = torch.where(operation == _BRIGHTNESS, 0., others)
    return (factor * images + (1 - factor) * others).clamp(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue (HSV) by ``shift`` (B,), in turns of the color circle."""
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    # Hue in sixths of a turn, from the largest channel. The hue of a gray
    # pixel has no effect, because its chroma is zero.
    divisor = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(
        value == red, (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor,
                    4 + (red - green) / divisor))
    hue = hue + 6 * shift.view(-1, 1, 1)
    # Back to RGB: https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB
    # alternative".
    channels = []
    for offset in (5, 3, 1):
        k = (offset + hue).remainder(6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


def gaussian_blur(images: Tensor, sigma: Tensor,
                  kernel_size: int = 23) -> Tensor:
    """Blur with a reflected border and sigma (B,), in pixels.

    Rows and columns are blurred by a matrix product per image, which is
    faster on GPU and CPU than many small convolutions.
    """
    rows, columns = (
        _blur_matrix(size, sigma, kernel_size) for size in images.shape[-2:])
    return (rows.unsqueeze(1) @ images
            @ columns.transpose(1, 2).unsqueeze(1)).clamp(0, 1)


def _blur_matrix(size: int, sigma: Tensor, kernel_size: int) -> Tensor:
    """Return (B, size, size): row i has the weights of the pixels around i."""
    radius = min(kernel_size // 2, size - 1)
    taps = torch.arange(-radius, radius + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (taps / sigma.unsqueeze(1))**2)
    weights = weights / weights.sum(dim=1, keepdim=True)
    at = torch.arange(size, device=sigma.device).unsqueeze(1) + taps
    at = at.abs()  # reflect at the first pixel, then at the last pixel
    at = torch.where(at >= size, 2 * (size - 1) - at, at)
    matrix = weights.new_zeros(len(sigma), size, size)
    return matrix.scatter_add_(2, at.expand(len(sigma), -1, -1),
                               weights.unsqueeze(1).expand(-1, size, -1))
