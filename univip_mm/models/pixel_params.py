"""Parameters of the pixel operations; unselected images do not change."""
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .augment_params import Augmentation, AugmentParams

# Gray value of an RGB pixel: ITU-R 601-2 luma, as in torchvision and PIL.
LUMA = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


class PixelParams(NamedTuple):
    """Parameters of B images: float32 arrays on the CPU, tensors on a device.

    The color jitter consists of three blends with another image (black, the
    mean gray value or the gray image) and a hue shift, in random order. All
    images take the same seven steps: the three blends, the hue shift and the
    three blends again. Each blend of an image has its share in one of its two
    steps, before or after the hue shift, and the share 0 in the other step.
    """
    flip: Any  # 1 for a flipped image, (B, 1)
    share: Any  # of the other image in each of the six blends, (B, 6)
    gray_luma: Any  # weights of R, G, B in the gray image, (B, 3, 3)
    is_pixelwise: Any  # 1 for the gray image, 0 for its mean, (B, 3)
    hue_turn: Any  # sign of the hue shift, (B, 1)
    hue_rest: Any  # sixth of a turn minus the size of the shift, (B, 1)
    gray: Any  # 1 for an image that gets gray, (B, 1)
    blur: Any  # weights of the pixels at distances 0 to the radius, (B, R + 1)
    threshold: Any  # of the solarization, (B, 1)

    def select(self, part: slice) -> 'PixelParams':
        """Return the parameters of some of the images."""
        return PixelParams(*(values[part] for values in self))


class Steps(NamedTuple):
    """Operations that at least one image needs."""
    flip: bool
    blends: tuple[bool, ...]
    hue: int  # number of equal hue shifts
    gray: bool
    blur: bool
    solarize: bool


def compute_pixel_params(params: AugmentParams, a: Augmentation,
                         hue_shifts: int, radius: int) -> PixelParams:
    """Compute the parameters of the pixel operations of B images.

    Args:
        params (AugmentParams): Sampled parameters.
        a (Augmentation): Options of these images.
        hue_shifts (int): Number of equal hue shifts in place of one.
        radius (int): Largest radius of a blur in the batch, in pixels.
    """
    place = (params.order == _HUE).argmax(axis=1)[:, None]
    blends = params.order[params.order != _HUE].reshape(-1, 3)
    factors = np.take_along_axis(params.amount, blends, axis=1)
    is_before = np.arange(3) < place
    has_blend = np.concatenate([is_before, ~is_before], axis=1)
    has_blend &= params.jitter[:, None]
    # A shift by a sixth of a turn is 1.
    shift = params.amount[:, _HUE] * params.jitter * (6 / hue_shifts)
    return PixelParams(*(values.astype(np.float32) for values in (
        params.flip[:, None],
        np.where(has_blend, np.tile(1 - factors, 2), 0),
        (blends != _BRIGHTNESS)[:, :, None] * np.array(LUMA),
        blends == _SATURATION,
        np.sign(shift)[:, None],
        1 - np.minimum(np.abs(shift), 1)[:, None],
        params.gray[:, None],
        _blur_weights(params, a.blur_kernel, radius),
        np.where(params.solarize, a.solarize_threshold, np.inf)[:, None])))


def _blur_weights(params: AugmentParams, kernel_size: int,
                  radius: int) -> ndarray:
    """Return weights (B, radius + 1) of a Gaussian, or 1, 0, ... , 0."""
    distance = np.arange(radius + 1)
    weights = np.exp(-0.5 * (distance / params.sigma[:, None])**2)
    weights *= distance <= kernel_size // 2
    weights[~params.blur] = distance == 0
    return weights / (2 * weights.sum(axis=1, keepdims=True) - 1)


def count_hue_shifts(options: Iterable[Augmentation]) -> int:
    """Return the number of hue shifts of at most a sixth of a turn each."""
    return max(1, *(int(np.ceil(6 * a.hue - 1e-6)) for a in options))


def find_steps(params: PixelParams, hue_shifts: int) -> Steps:
    """Return the operations that at least one of the images needs.

    ``params`` are NumPy arrays, so nothing is read from a device.
    """
    return Steps(
        flip=bool(params.flip.any()),
        blends=tuple((params.share != 0).any(axis=0).tolist()),
        hue=hue_shifts if (params.hue_rest != 1).any() else 0,
        gray=bool(params.gray.any()),
        blur=bool((params.blur[:, 0] != 1).any()),
        solarize=bool(np.isfinite(params.threshold).any()))


def concatenate(parts: Iterable[PixelParams]) -> PixelParams:
    """Concatenate the arrays of several batches."""
    return PixelParams(*map(np.concatenate, zip(*parts)))


def upload(batches: list[PixelParams],
           device: torch.device) -> list[PixelParams]:
    """Copy the arrays of all batches to the device, in one copy."""
    arrays = [values for batch in batches for values in batch]
    packed = torch.from_numpy(np.concatenate([x.ravel() for x in arrays]))
    if device.type == 'cuda':
        # From pageable memory, the copy would wait for the GPU.
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split(
        [x.size for x in arrays])
    tensors: list[Tensor] = [
        part.view(x.shape) for part, x in zip(parts, arrays)]
    width = len(PixelParams._fields)
    return [PixelParams(*tensors[i:i + width])
            for i in range(0, len(tensors), width)]
