"""Unlabeled clutter on the floor: pebbles, scraps, twigs and a cord."""
import cv2
import numpy as np

from .sketch import FRACTION_BITS, ellipse, fixed_point
from .textures import fractal_noise, random_color


def add_clutter(image: np.ndarray, horizon: int, rng: np.random.Generator,
                light: np.ndarray) -> np.ndarray:
    """Draw unlabeled clutter below the horizon, the first row of the floor.

    ``image`` is (H, W, 3) uint8 BGR; the result is float32. ``light`` is a
    (3,) unit vector to the light.
    """
    height, width = image.shape[:2]
    unit = min(height, width) / 240
    layer, cover = image.copy(), np.zeros((height, width), np.uint8)
    for points, line_width in _random_paths(rng, width, height, horizon, unit):
        pixels = [fixed_point(points)]
        x, y = np.clip(points[0], 0, (width - 1, height - 1)).astype(int)
        color = np.add(image[y, x] * 0.4, random_color(rng, 0.15)) * 0.7
        for canvas, value in ((layer, color.tolist()), (cover, 255)):
            if line_width:
                thickness = max(1, round(line_width * unit))
                cv2.polylines(canvas, pixels, False, value, thickness,
                              cv2.LINE_AA, FRACTION_BITS)
            else:
                cv2.fillPoly(canvas, pixels, value, cv2.LINE_AA, FRACTION_BITS)
    return layer * _shading(cover, unit, light)[..., None]


def _random_paths(rng, width: int, height: int, horizon: int, unit) -> list:
    """Return pairs of points (N, 2) and line width, 0 for a filled polygon."""
    paths = []
    for _ in range(rng.integers(8, 36)):
        place = rng.uniform((0, horizon), (width, height))
        kind = rng.choice(['pebble', 'scrap', 'twig'])
        if kind == 'pebble':
            radii = rng.uniform(1.5, 5.5, 2) * unit
            paths.append((ellipse(*place, *radii, steps=14), 0))
        elif kind == 'scrap':
            points = place + rng.uniform(-6, 6, (4, 2)) * unit
            paths.append((cv2.convexHull(np.float32(points))[:, 0], 0))
        else:
            steps = rng.normal(0, 5, 2) + rng.normal(0, 2, (4, 2))
            paths.append((place + np.cumsum(steps * unit, axis=0), 1.6))
    if rng.random() < 0.4:  # a cord across the floor
        wave = rng.uniform(0.2, 1) + 0.4 * fractal_noise(rng, 1, 60, 2, 2)[0]
        points = np.column_stack([np.linspace(-0.1, 1.1, 60), wave])
        points = points * (width, height - horizon) + (0, horizon)
        paths.append((points, rng.uniform(1, 4)))
    return paths


def _shading(cover: np.ndarray, unit: float, light: np.ndarray) -> np.ndarray:
    """Return the factor (H, W) float32 of the clutter's light and shadow."""
    shift = np.column_stack([np.eye(2), -3 * unit * light[:2]])
    shadow = cv2.warpAffine(cover, np.float32(shift), cover.shape[::-1])
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1.2 * unit).astype(np.float32)
    # The difference to the shifted cover is the slope towards the light.
    rim = cv2.addWeighted(cover, 0.15 / 255, shadow, -0.15 / 255, 0,
                          dtype=cv2.CV_32F)
    return np.where(cover > 127, 1 + rim, 1 - 0.5 / 255 * shadow)
