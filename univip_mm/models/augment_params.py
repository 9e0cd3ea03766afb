"""Options of the photometric augmentation and their random parameters."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

# Uniform numbers from which the parameters of one image are computed.
NUM_UNIFORMS = 14


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges of the photometric augmentation of a view.

    The defaults are those of BYOL's first view
    (https://arxiv.org/abs/2006.07733, App. B). The operations run in the
    order of the options.

    Args:
        flip_prob (float): Probability of a horizontal flip.
        jitter_prob (float): Probability of the color jitter. Its four
            operations run in random order.
        brightness, contrast, saturation (float): Factors of the color jitter
            are uniform in [1 - value, 1 + value].
        hue (float): Shift of the color jitter, uniform in [-hue, hue], in
            turns of the color circle. At most 0.5.
        gray_prob (float): Probability of the conversion to gray.
        blur_prob (float): Probability of the Gaussian blur.
        blur_sigma (tuple[float, float]): Range of the standard deviation of
            the blur, in pixels.
        blur_kernel (int): Odd kernel size of the blur, in pixels. A smaller
            image uses the largest kernel that the reflected border allows.
        solarize_prob (float): Probability of inverting the pixels at or above
            ``solarize_threshold``.
        solarize_threshold (float): In [0, 1]. Defaults to 128 / 255.

    Raises:
        ValueError: A value is out of range.
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

    def __post_init__(self) -> None:
        for name in ('flip_prob', 'jitter_prob', 'gray_prob', 'blur_prob',
                     'solarize_prob'):
            self._require(name, 0 <= getattr(self, name) <= 1, 'in [0, 1]')
        for name in ('brightness', 'contrast', 'saturation'):
            self._require(name, getattr(self, name) >= 0, 'of at least 0')
        self._require('hue', 0 <= self.hue <= 0.5, 'in [0, 0.5] turns')
        self._require('blur_kernel', self.blur_kernel % 2 == 1
                      and self.blur_kernel > 0, 'that is odd and positive')
        low, high = self.blur_sigma
        self._require('blur_sigma', 0 < low <= high < math.inf,
                      '(low, high) with 0 < low <= high, in pixels')

    def _require(self, name: str, is_valid: bool, rule: str) -> None:
        if not is_valid:
            raise ValueError(
                f'{name} is {getattr(self, name)}: set a value {rule}')


@dataclass(frozen=True)
class AugmentParams:
    """Sampled augmentation parameters, one row per image.

    NumPy arrays, because a PyTorch operation on a small array takes longer.
    The bool arrays (B,) select the images that get the operation.
    """
    flip: ndarray
    jitter: ndarray
    order: ndarray  # of 0 brightness, 1 contrast, 2 saturation, 3 hue, (B, 4)
    amount: ndarray  # factors and shift of these four operations, (B, 4)
    gray: ndarray
    blur: ndarray
    sigma: ndarray  # standard deviation of the blur, (B,), in pixels
    solarize: ndarray


def sample_from_seeds(seeds: Sequence[int], num_views: int) -> ndarray:
    """Return uniform numbers (B, num_views, NUM_UNIFORMS), a row per seed.

    Row i is what ``np.random.Philox(key=seeds[i])`` yields, in float32. One
    generator with the state of each seed in turn is four times as fast as B
    generators.
    """
    philox = np.random.Philox(key=0)
    generator = np.random.Generator(philox)
    state = philox.state
    uniforms = np.empty((len(seeds), num_views, NUM_UNIFORMS), np.float32)
    for seed, row in zip(seeds, uniforms):
        state['state']['key'][:] = int(seed) % 2**64, int(seed) >> 64
        philox.state = state
        generator.random(out=row, dtype=np.float32)
    return uniforms


def sample_params(uniforms: ndarray, a: Augmentation) -> AugmentParams:
    """Compute the parameters of B images from uniform random numbers.

    The numbers (B, NUM_UNIFORMS) are float32 in [0, 1).
    """
    (flip, jitter, brightness, contrast, saturation, hue, gray, blur, sigma,
     solarize) = uniforms.T[:10]

    def scale(uniform: ndarray, low: float, high: float) -> ndarray:
        return low + (high - low) * uniform

    def factor(uniform: ndarray, spread: float) -> ndarray:
        return scale(uniform, max(0., 1 - spread), 1 + spread)

    return AugmentParams(
        flip=flip < a.flip_prob,
        jitter=jitter < a.jitter_prob,
        order=uniforms[:, 10:].argsort(axis=1, kind='stable'),
        amount=np.stack([
            factor(brightness, a.brightness), factor(contrast, a.contrast),
            factor(saturation, a.saturation), scale(hue, -a.hue, a.hue)],
            axis=1),
        gray=gray < a.gray_prob,
        blur=blur < a.blur_prob,
        sigma=scale(sigma, *a.blur_sigma),
        solarize=solarize < a.solarize_prob)
