"""Random colors, noise and patterns, used by objects and backgrounds."""
import colorsys

import cv2
import numpy as np

WHITE, PALE, INK = (250, 250, 250), (205, 228, 238), (28, 24, 26)
LUMA = (0.11, 0.59, 0.30)  # weights of blue, green, red


def random_color(rng, low=0.3) -> tuple:
    """Return a BGR color of any hue; its HSV value is at least ``low``."""
    return hsv_to_bgr(rng.uniform(), rng.uniform(0.1, 0.95),
                      rng.uniform(low, 1))


def hsv_to_bgr(hue: float, saturation: float, value: float) -> tuple:
    """Convert HSV of 0 to 1 to BGR of 0 to 255."""
    rgb = colorsys.hsv_to_rgb(hue, saturation, value)
    return tuple(255 * x for x in reversed(rgb))


def contrasting_colors(rng) -> tuple:
    """Return two BGR colors of different lightness, in random order."""
    while True:
        first, second = random_color(rng), random_color(rng)
        if abs(np.dot(np.subtract(first, second), LUMA)) > 75:
            return first, second


def color_ramp(rng, hue, low=0.25, high=0.85, max_saturation=0.5) -> list:
    """Return three BGR shades of about one hue, from dark to light.

    ``low`` and ``high`` are the range of the lightest HSV value.
    """
    saturation = rng.uniform(0.1, max_saturation)
    top = rng.uniform((low + high) / 2, high)
    values = (top * rng.uniform(0.4, 0.6), top * 0.8, top)
    return [hsv_to_bgr((hue + rng.uniform(-0.02, 0.02)) % 1, saturation, value)
            for value in values]


def fractal_noise(rng, h, w, cells=4, octaves=5, stretch=1.0) -> np.ndarray:
    """Return noise (h, w) float32 of several octaves, about -1 to 1.

    ``cells`` is the number of grid cells of the coarsest octave; octaves finer
    than the pixels are left out. ``stretch`` lengthens structures along x.
    """
    total = np.zeros((h, w), np.float32)
    for octave in range(octaves):
        n = cells * 2**octave
        if n > 2 * max(h, w):
            break
        grid = rng.random((n, max(int(n / stretch), 2)), dtype=np.float32)
        grid = (grid - 0.5) * 0.62**octave
        total += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
    return total * 1.6


def block_pattern(rng, h, w, block_w, block_h, shift) -> tuple:
    """Return a wall's tone per block (h, w), 0 to 1, and its bool joint mask.

    ``shift`` is the shift from row to row, as a share of the block's width.
    """
    y, x = np.mgrid[:h, :w].astype(np.float32)
    row = y // block_h
    x = x + row * shift * block_w
    column = x // block_w
    table = rng.random(4096, dtype=np.float32)
    tone = table[(row * 57 + column).astype(int) % 4096]
    joint = (x - column * block_w < 2.5) | (y - row * block_h < 2.5)
    return tone, joint
