"""Photometric operations on a batch with different parameters per image.

Images are RGB in [0, 1], (B, 3, H, W), on any device. Each operation equals
the torchvision operation of the same kind, applied to one image.

Every operation runs on the whole batch. The parameters of an unselected image
leave this image bit-identical. So no operation needs an index of the selected
images, and the host never waits for the device.
"""
from functools import lru_cache

import torch
from torch import Tensor

from .pixel_params import LUMA, PixelParams, Steps


def augment(images: Tensor, params: PixelParams, steps: Steps) -> Tensor:
    """Augment RGB images (B, 3, H, W) in [0, 255].

    Args:
        images (Tensor): Images of any dtype. They are not modified.
        params (PixelParams): Tensors on the device of the images.
        steps (Steps): Operations that at least one image needs.

    Returns:
        Tensor: float32 images in [0, 1].
    """
    if steps.flip:
        images = torch.where(
            _per_image(params.flip) > 0, images.flip(-1), images)
    images = images / 255
    for i, is_needed in enumerate(steps.blends):
        if i == 3:
            for _ in range(steps.hue):
                shift_hue_(images, params.hue_turn, params.hue_rest)
        if is_needed:
            blend_(images, params.share[:, i], params.gray_luma[:, i % 3],
                   params.is_pixelwise[:, i % 3])
    if steps.gray:
        images.lerp_(to_gray(images), _per_image(params.gray))
    if steps.blur:
        images = blur(images, params.blur)
    if steps.solarize:
        images = torch.where(
            images >= _per_image(params.threshold), 1 - images, images)
    return images


def _per_image(values: Tensor) -> Tensor:
    """Reshape (B,) or (B, 1) to (B, 1, 1, 1)."""
    return values.reshape(-1, 1, 1, 1)


def to_gray(images: Tensor) -> Tensor:
    """Convert RGB images (B, 3, H, W) to gray images (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    gray = red * LUMA[0]
    return gray.add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def blend_(images: Tensor, share: Tensor, luma: Tensor,
           is_pixelwise: Tensor) -> Tensor:
    """Blend each image with black, its mean gray value or its gray image.

    This adjusts the brightness, contrast or saturation by the factor
    ``1 - share``, (B,). ``luma`` (B, 3) are the weights of R, G and B in the
    gray image, 0 for black. With ``is_pixelwise`` (B,) 0, the gray image is
    replaced by its mean.
    """
    gray = torch.bmm(luma.unsqueeze(1), images.flatten(2))
    gray = torch.lerp(gray.mean(2, keepdim=True), gray,
                      is_pixelwise.view(-1, 1, 1))
    gray = gray.view(-1, 1, *images.shape[2:])
    return images.lerp_(gray, _per_image(share)).clamp_(0, 1)


def shift_hue_(images: Tensor, turn: Tensor, rest: Tensor) -> Tensor:
    """Shift the hue (HSV) by at most a sixth of a turn of the color circle.

    ``turn`` (B, 1) is the sign of the shift and ``rest`` (B, 1) is 1 minus
    the size of the shift in sixths.

    Around the color circle, a channel stays at the maximum of the pixel for
    two sixths, falls to the minimum within one sixth, stays there for two
    sixths and rises again. The difference of the other two channels, divided
    by maximum minus minimum, says how far away the next fall or rise is: the
    shift reaches a fall or rise if the difference exceeds ``rest``.
    """
    high = images.amax(1, keepdim=True)
    low = images.amin(1, keepdim=True)
    circle = torch.cat([images, images[:, :2]], dim=1)
    difference = circle[:, 2:] - circle[:, 1:4]
    limit = (high - low).mul_(_per_image(rest))
    difference = difference - torch.clamp(difference, -limit, limit)
    images.addcmul_(difference, _per_image(turn))
    return images.clamp_(low, high)


def blur(images: Tensor, weights: Tensor) -> Tensor:
    """Blur by symmetric kernels (B, R + 1), with a reflected border.

    ``weights`` are those of the pixels at the distances 0 to R. Rows and
    columns are blurred by a matrix product per image, which is faster on GPU
    and CPU than many small convolutions.

    If PyTorch multiplies float32 matrices in TF32, which is not its default,
    all images of the batch are rounded to 11 bits, an eighth of a gray level.
    """
    radius = weights.shape[1] - 1
    rows, columns = (
        torch.mm(weights, _distance_masks(size, radius, images.device))
        .view(-1, size, size) for size in images.shape[2:])
    blurred = torch.bmm(images.flatten(1, 2), columns.transpose(1, 2))
    return rows.unsqueeze(1) @ blurred.view_as(images)


@lru_cache(maxsize=16)
def _distance_masks(size: int, radius: int, device: torch.device) -> Tensor:
    """Return the places of the weights in a blur matrix, as masks.

    The shape is (radius + 1, size * size). Entry [d, i * size + j] counts how
    often pixel j is at the distance d from pixel i. Near a border, a pixel
    and its reflection both count.
    """
    distance = torch.arange(radius + 1, device=device).view(-1, 1, 1)
    at = torch.arange(size, device=device)
    of = at.view(-1, 1)
    last = size - 1
    masks = ((at - of).abs() == distance).float()
    masks += (at + of == distance) & (at > 0)
    masks += (2 * last - at - of == distance) & (at < last)
    return masks.flatten(1)
