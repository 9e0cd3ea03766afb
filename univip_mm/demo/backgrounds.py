"""Backgrounds: materials, and a floor with or without a wall behind it.

A material is a function of (rng, h, w). The function returns the tone of each
pixel, (h, w) of about 0 to 1, and the BGR colors for the tones from 0 to 1.
"""
import cv2
import numpy as np

from . import textures
from .textures import block_pattern, color_ramp, fractal_noise

PLANE_SIDE = 400  # pixels of a texture that is seen in perspective


def wood(rng, h, w) -> tuple:
    """Return planks with a grain along x."""
    grain = fractal_noise(rng, h, w, 16, 5, stretch=10)
    planks, joint = block_pattern(rng, h, w, rng.uniform(.5, 1.2) * w,
                                  rng.uniform(.08, .2) * h, 0.37)
    tone = 0.55 + 0.3 * grain + 0.35 * (planks - 0.5)
    return np.where(joint, 0.05, tone), color_ramp(rng, rng.uniform(.04, .1))


def brick(rng, h, w) -> tuple:
    """Return bricks with dark or light joints."""
    high = rng.uniform(0.05, 0.09) * h
    bricks, joint = block_pattern(rng, h, w, high * 2.3, high, 0.5)
    tone = 0.35 + 0.4 * bricks + 0.2 * fractal_noise(rng, h, w, 16, 5)
    tone = np.where(joint, rng.choice([0.02, 0.95]), tone)
    hue = rng.choice([rng.uniform(0, 0.06), rng.uniform()])
    return tone, color_ramp(rng, hue)


def tiles(rng, h, w) -> tuple:
    """Return square tiles."""
    side = rng.uniform(0.1, 0.2) * h
    squares, joint = block_pattern(rng, h, w, side, side, 0)
    tone = 0.6 + rng.uniform(0.1, 0.5) * (squares - 0.5)
    tone = np.where(joint, 0.1, tone + 0.15 * fractal_noise(rng, h, w))
    return tone, color_ramp(rng, rng.uniform(), max_saturation=0.3)


def carpet(rng, h, w) -> tuple:
    """Return a woven carpet, with stripes in one or both directions."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    step = rng.uniform(0.05, 0.15) * w
    weave = np.sin(x / step * 6) * rng.choice([0, 1]) + np.sin(y / step * 6)
    tone = (0.5 + 0.1 * weave + 0.25 * fractal_noise(rng, h, w, 6)
            + 0.16 * rng.standard_normal((h, w), np.float32))
    return tone, color_ramp(rng, rng.uniform())


def grass(rng, h, w) -> tuple:
    """Return grass with vertical blades."""
    ground = fractal_noise(rng, h, w, 5)
    blades = fractal_noise(rng, w, h, 48, 3, stretch=5).T
    tone = 0.5 + 0.25 * ground + 0.5 * blades
    return tone, color_ramp(rng, rng.uniform(.16, .3), .25, .75, .7)


def sand(rng, h, w) -> tuple:
    """Return rippled sand."""
    y = np.arange(h, dtype=np.float32)[:, None]
    ripple = np.sin(y * rng.uniform(0.1, 0.3)
                    + 5 * fractal_noise(rng, h, w, 3, 3))
    tone = (0.6 + 0.12 * ripple + 0.15 * fractal_noise(rng, h, w, 8)
            + 0.08 * rng.standard_normal((h, w), np.float32))
    return tone, color_ramp(rng, rng.uniform(.07, .14), .5, .95, .4)


def stone(rng, h, w) -> tuple:
    """Return stone with veins."""
    veins = np.sqrt(np.abs(fractal_noise(rng, h, w, 4)))
    tone = 0.25 + 0.9 * veins + 0.2 * fractal_noise(rng, h, w, 24, 4)
    return tone, color_ramp(rng, rng.uniform(), max_saturation=0.25)


def plaster(rng, h, w) -> tuple:
    """Return plaster, or wallpaper with vertical stripes."""
    x = np.arange(w, dtype=np.float32)[None]
    stripes = np.sign(np.sin(x * rng.uniform(0.08, 0.3)))
    tone = (0.6 + 0.18 * fractal_noise(rng, h, w, 3, 6)
            + rng.choice([0, 0.12]) * stripes)
    return tone, color_ramp(rng, rng.uniform())


def sky(rng, h, w) -> tuple:
    """Return sky with clouds."""
    y = np.linspace(0, 0.5, h, dtype=np.float32)[:, None]
    ramp = color_ramp(rng, rng.uniform(.52, .62), .6, 1, .6)
    clouds = np.maximum(fractal_noise(rng, h, w, 3, 5, stretch=1.6), 0)
    return 0.25 + y + 0.7 * clouds, [*ramp[1:], textures.PALE, textures.WHITE]


# A name that occurs twice is twice as likely.
FLOORS = (wood, brick, tiles, carpet, grass, sand, stone)
WALLS = (brick, plaster, plaster, tiles, wood, sky, sky, stone, grass)


def make_background(rng: np.random.Generator, width: int,
                    height: int) -> tuple:
    """Return a floor seen from above, or a floor in front of a wall or sky.

    Returns:
        tuple: Image (H, W, 3) uint8 BGR, and the first row of the floor, 0
        without a wall.
    """
    horizon = int(rng.choice([0, height * rng.uniform(0.12, 0.45)]))
    floor = _make_floor(rng, width, height - horizon, bool(horizon))
    if not horizon:
        return floor, 0
    wall = _render(rng.choice(WALLS), rng, horizon, width)
    wall = cv2.GaussianBlur(wall, (0, 0), rng.uniform(0.4, 1.6))
    image = np.concatenate([wall, floor])
    edge = rng.integers(1, 7)  # rows of a baseboard or a curb
    strip = image[horizon - edge:horizon]
    strip[:] = strip * 0.3 + np.multiply(textures.random_color(rng), 0.7)
    image[horizon:horizon + 3] = image[horizon:horizon + 3] * 0.6
    return image, horizon


def _make_floor(rng, width: int, depth: int, tilted: bool) -> np.ndarray:
    """Return a floor in perspective, (depth, width, 3) uint8."""
    far, near = rng.uniform(0.1, 0.4), rng.uniform(0.5, 1.2)
    if not tilted:
        near = far + rng.uniform(0, 0.2)
    corners = np.float32([(-far * width, 0), ((1 + far) * width, 0),
                          ((1 + near) * width, depth), (-near * width, depth)])
    plane = np.float32([(0, 0), (1, 0), (1, 1), (0, 1)]) * PLANE_SIDE
    perspective = cv2.getPerspectiveTransform(plane, corners)
    return _render(rng.choice(FLOORS), rng, depth, width, perspective)


def _render(material, rng, h, w, perspective=None) -> np.ndarray:
    """Return a material in color, (h, w, 3) uint8 BGR.

    With ``perspective``, a (3, 3) matrix, the material is made as a plane of
    ``PLANE_SIDE`` pixels and warped.
    """
    size = (h, w) if perspective is None else (PLANE_SIDE, PLANE_SIDE)
    tone, ramp = material(rng, *size)
    tone = np.clip(tone * 255, 0, 255).astype(np.uint8)
    if perspective is not None:
        tone = cv2.warpPerspective(tone, perspective, (w, h),
                                   borderMode=cv2.BORDER_REFLECT)
    stops = np.linspace(0, 255, len(ramp))
    table = np.stack([np.interp(np.arange(256), stops, channel)
                      for channel in zip(*ramp)], axis=1)
    return cv2.applyColorMap(tone, table.astype(np.uint8)[:, None])
