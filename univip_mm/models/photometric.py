"""BYOL's photometric augmentation of a batch, each image on its own.

Values are drawn on the CPU, so a seed gives the same ones whatever the
device; pixels are changed on the device of the images. Images are RGB in
[0, 1], (B, 3, H, W). Every operation equals torchvision's of that name with
the drawn value, applied to one image.
"""
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

# Grey value of an RGB pixel: ITU-R 601-2 luma, as in torchvision and PIL.
_LUMA = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for a view, and how often.

    The defaults are BYOL's first view (https://arxiv.org/abs/2006.07733,
    App. B). The operations run in this order.

    Args:
        flip_prob (float): Probability of a horizontal flip.
        jitter_prob (float): Probability of the colour jitter.
        brightness, contrast, saturation (float): The jitter's factor is
            uniform in [1 - value, 1 + value]; its four operations come in
            random order.
        hue (float): The jitter's shift is uniform in [-hue, hue], in turns of
            the colour circle, at most 0.5.
        gray_prob (float): Probability of becoming grey.
        blur_prob (float): Probability of the Gaussian blur.
        blur_sigma (tuple[float, float]): Range of its standard deviation,
            pixels.
        blur_kernel (int): Its width, odd, pixels; on a smaller image, the
            widest that the reflected border allows.
        solarize_prob (float): Probability of inverting the pixels at or above
            ``solarize_threshold``.
        solarize_threshold (float): In [0, 1]. Defaults to 128 / 255.
    """
    flip_prob: float = 0.5
    jitter_prob: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    gray_prob: float = 0.2
    blur_prob: float = 1.0
    blur_sigma: tuple = (0.1, 2.0)
    blur_kernel: int = 23
    solarize_prob: float = 0.0
    solarize_threshold: float = 128 / 255


@dataclass(frozen=True)
class Drawn:
    """The values drawn for a batch, one of each an image, on the CPU.

    ``order`` (B, 4) is the order of the jitter's operations: 0 brightness,
    1 contrast, 2 saturation, 3 hue; ``amount`` (B, 4) their factors and
    shift. The others are (B,), bool but for ``sigma``.
    """
    flip: Tensor
    jitter: Tensor
    order: Tensor
    amount: Tensor
    gray: Tensor
    blur: Tensor
    sigma: Tensor
    solarize: Tensor

    def split(self, size: int) -> list['Drawn']:
        """Those of ``size`` images each, as ``Tensor.split``."""
        return [Drawn(*values) for values in zip(*(
            getattr(self, field.name).split(size) for field in fields(self)))]

    @classmethod
    def join(cls, parts: list['Drawn']) -> 'Drawn':
        """Those of several batches, one after the other."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts])
                     for field in fields(cls)))


NUMBERS = 14  # uniform numbers that an image's values are made of


def draw(numbers: Tensor, augmentation: Augmentation) -> Drawn:
    """The values for a batch of images, for each image on its own.

    Args:
        numbers (Tensor): Uniform in [0, 1), (B, NUMBERS), on the CPU.
        augmentation (Augmentation): What to make of them.
    """
    a = augmentation
    (flip, jitter, brightness, contrast, saturation, hue, gray, blur, sigma,
     solarize) = numbers[:, :10].unbind(1)

    def uniform(number: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * number

    return Drawn(
        flip=flip < a.flip_prob,
        jitter=jitter < a.jitter_prob,
        order=numbers[:, 10:].argsort(dim=1),
        amount=torch.stack([
            uniform(brightness, max(0., 1 - a.brightness), 1 + a.brightness),
            uniform(contrast, max(0., 1 - a.contrast), 1 + a.contrast),
            uniform(saturation, max(0., 1 - a.saturation), 1 + a.saturation),
            uniform(hue, -a.hue, a.hue)
        ], dim=1),
        gray=gray < a.gray_prob,
        blur=blur < a.blur_prob,
        sigma=uniform(sigma, *a.blur_sigma),
        solarize=solarize < a.solarize_prob)  # yapf: disable


def apply(images: Tensor, drawn: Drawn, augmentation: Augmentation) -> Tensor:
    """Augment a batch of images with the values drawn for it.

    Args:
        images (Tensor): (B, 3, H, W), RGB in [0, 1], floating.
        drawn (Drawn): The values.
        augmentation (Augmentation): What they were drawn for.

    Returns:
        Tensor: (B, 3, H, W), in [0, 1].
    """
    images = images.clone()

    def change(chosen: Tensor, operation, *values: Tensor) -> None:
        """Run the operation on the chosen images alone, each with its own
        value; which they are is known without asking the device."""
        index = chosen.nonzero().squeeze(1)
        if len(index):
            on_device = index.to(images.device, non_blocking=True)
            images[on_device] = operation(
                images[on_device],
                *(value[index].to(images.device, non_blocking=True)
                  for value in values))

    change(drawn.flip, lambda x: x.flip(-1))
    for operations in drawn.order.unbind(1):
        amount = drawn.amount.gather(1, operations.unsqueeze(1)).squeeze(1)
        is_hue = operations == _HUE
        change(drawn.jitter & ~is_hue, adjust, operations, amount)
        change(drawn.jitter & is_hue, adjust_hue, amount)
    change(drawn.gray, lambda x: gray(x).expand_as(x))
    change(drawn.blur,
           lambda x, sigma: blur(x, sigma, augmentation.blur_kernel),
           drawn.sigma)
    threshold = augmentation.solarize_threshold
    change(drawn.solarize, lambda x: torch.where(x >= threshold, 1 - x, x))
    return images


def gray(images: Tensor) -> Tensor:
    """Grey values of RGB images (B, 3, H, W), as (B, 1, H, W)."""
    luma = images.new_tensor(_LUMA).view(3, 1, 1)
    return (images * luma).sum(dim=1, keepdim=True)


def adjust(images: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Each image's brightness, contrast or saturation, by a blend with black,
    with its mean grey value, or with its grey image: one pass for all, so
    that a GPU starts few kernels.

    Args:
        images (Tensor): (B, 3, H, W).
        operation (Tensor): Which of the three, 0 to 2, (B,).
        factor (Tensor): Share of the image in the blend, (B,).
    """
    factor, operation = factor.view(-1, 1, 1, 1), operation.view(-1, 1, 1, 1)
    others = gray(images)
    others = torch.where(
        operation == _CONTRAST, others.mean((1, 2, 3), keepdim=True), others)
    others = torch.where(operation == _BRIGHTNESS, 0., others)
    return (factor * images + (1 - factor) * others).clamp(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` (B,), in turns; value and saturation (HSV)
    stay."""
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    # Hue in sixths of a turn, from the channel that is the largest. A grey
    # pixel has none; its chroma of zero makes any number right.
    divisor = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(
        value == red, (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor,
                    4 + (red - green) / divisor))
    hue = hue + 6 * shift.view(-1, 1, 1)
    # Back by https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB
    # alternative".
    channels = []
    for offset in (5, 3, 1):
        k = (offset + hue).remainder(6)
        channels.append(
            value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


def blur(images: Tensor, sigma: Tensor, kernel_size: int = 23) -> Tensor:
    """Gaussian blur with a reflected border; sigma (B,), pixels.

    The blur of rows and of columns is a product with a matrix for each image,
    which a GPU and a CPU do faster than many small convolutions.
    """
    height, width = images.shape[-2:]
    rows = _blur_matrix(height, sigma, kernel_size)
    columns = _blur_matrix(width, sigma, kernel_size)
    return (rows.unsqueeze(1) @ images
            @ columns.transpose(1, 2).unsqueeze(1)).clamp(0, 1)


def _blur_matrix(size: int, sigma: Tensor, kernel_size: int) -> Tensor:
    """(B, size, size): row i holds the weights of the pixels around i."""
    radius = min(kernel_size // 2, size - 1)
    taps = torch.arange(-radius, radius + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (taps / sigma.unsqueeze(1))**2)
    weights = weights / weights.sum(dim=1, keepdim=True)
    at = torch.arange(size, device=sigma.device).unsqueeze(1) + taps
    at = at.abs()  # reflected at the first pixel, then at the last one
    at = torch.where(at >= size, 2 * (size - 1) - at, at)
    matrix = weights.new_zeros(len(sigma), size, size)
    return matrix.scatter_add_(2, at.expand(len(sigma), -1, -1),
                               weights.unsqueeze(1).expand(-1, size, -1))


def check(augmentation: Augmentation) -> list[str]:
    """What is wrong with an augmentation, a line each."""
    a = augmentation
    problems = [
        f'{name} is {getattr(a, name)}: a probability lies in [0, 1]'
        for name in ('flip_prob', 'jitter_prob', 'gray_prob', 'blur_prob',
                     'solarize_prob') if not 0 <= getattr(a, name) <= 1
    ]
    problems += [
        f'{name} is {getattr(a, name)}: it must not be negative'
        for name in ('brightness', 'contrast', 'saturation')
        if getattr(a, name) < 0
    ]
    if not 0 <= a.hue <= 0.5:
        problems.append(f'hue is {a.hue}: it lies in [0, 0.5] turns')
    if a.blur_kernel < 1 or a.blur_kernel % 2 == 0:
        problems.append(f'blur_kernel is {a.blur_kernel}: it must be odd')
    if not 0 < a.blur_sigma[0] <= a.blur_sigma[1] < math.inf:
        problems.append(f'blur_sigma is {a.blur_sigma}: it is a range of '
                        'positive pixels')
    return problems
