"""Backgrounds: materials, a floor with or without a wall, and clutter.

A material is a function of (rng, h, w). The function returns the tone of each
pixel, (h, w) of about 0 to 1, and the BGR colors for the tones from 0 to 1.
"""
import cv2
import numpy as np

from .sketch import FRACTION_BITS, ellipse, fixed_point
from .textures import block_pattern, color_ramp, fractal_noise, random_color

PLANE_SIDE = 400  # pixels of a texture that is seen in perspective


def _wood(rng, h, w):
    """Return planks with a grain along x."""
    grain = fractal_noise(rng, h, w, 16, 5, stretch=10)
    planks, joint = block_pattern(rng, h, w, rng.uniform(.5, 1.2) * w,
                                  rng.uniform(.08, .2) * h, 0.37)
    tone = 0.55 + 0.3 * grain + 0.35 * (planks - 0.5)
    return np.where(joint, 0.05, tone), color_ramp(rng, rng.uniform(.04, .1))


def _brick(rng, h, w):
    high = rng.uniform(0.05, 0.09) * h
    bricks, joint = block_pattern(rng, h, w, high * 2.3, high, 0.5)
    tone = 0.35 + 0.4 * bricks + 0.2 * fractal_noise(rng, h, w, 16, 5)
    tone = np.where(joint, rng.choice([0.02, 0.95]), tone)
    hue = rng.choice([rng.uniform(0, 0.06), rng.uniform()])
    return tone, color_ramp(rng, hue)


def _tiles(rng, h, w):
    side = rng.uniform(0.1, 0.2) * h
    squares, joint = block_pattern(rng, h, w, side, side, 0)
    tone = 0.6 + rng.uniform(0.1, 0.5) * (squares - 0.5)
    tone = np.where(joint, 0.1, tone + 0.15 * fractal_noise(rng, h, w))
    return tone, color_ramp(rng, rng.uniform(), max_saturation=0.3)


def _carpet(rng, h, w):
    """Return a weave with stripes in one or both directions."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    step = rng.uniform(0.05, 0.15) * w
    weave = np.sin(x / step * 6) * rng.choice([0, 1]) + np.sin(y / step * 6)
    tone = (0.5 + 0.1 * weave + 0.25 * fractal_noise(rng, h, w, 6)
            + 0.16 * rng.standard_normal((h, w), np.float32))
    return tone, color_ramp(rng, rng.uniform())


def _grass(rng, h, w):
    ground = fractal_noise(rng, h, w, 5)
    blades = fractal_noise(rng, w, h, 48, 3, stretch=5).T
    tone = 0.5 + 0.25 * ground + 0.5 * blades
    return tone, color_ramp(rng, rng.uniform(.16, .3), .25, .75, .7)


def _sand(rng, h, w):
    y = np.arange(h, dtype=np.float32)[:, None]
    waves = y * rng.uniform(0.1, 0.3) + 5 * fractal_noise(rng, h, w, 3, 3)
    tone = (0.6 + 0.12 * np.sin(waves) + 0.15 * fractal_noise(rng, h, w, 8)
            + 0.08 * rng.standard_normal((h, w), np.float32))
    return tone, color_ramp(rng, rng.uniform(.07, .14), .5, .95, .4)


def _stone(rng, h, w):
    veins = np.sqrt(np.abs(fractal_noise(rng, h, w, 4)))
    tone = 0.25 + 0.9 * veins + 0.2 * fractal_noise(rng, h, w, 24, 4)
    return tone, color_ramp(rng, rng.uniform(), max_saturation=0.25)


def _plaster(rng, h, w):
    """Return plaster, or wallpaper with vertical stripes."""
    x = np.arange(w, dtype=np.float32)[None]
    stripes = np.sign(np.sin(x * rng.uniform(0.08, 0.3)))
    tone = (0.6 + 0.18 * fractal_noise(rng, h, w, 3, 6)
            + rng.choice([0, 0.12]) * stripes)
    return tone, color_ramp(rng, rng.uniform())


def _sky(rng, h, w):
    y = np.linspace(0, 0.5, h, dtype=np.float32)[:, None]
    ramp = color_ramp(rng, rng.uniform(.52, .62), .6, 1, .6)
    clouds = np.maximum(fractal_noise(rng, h, w, 3, 5, stretch=1.6), 0)
    white = [(205, 228, 238), (250, 250, 250)]
    return 0.25 + y + 0.7 * clouds, ramp[1:] + white


# A name that occurs twice is twice as likely.
FLOORS = (_wood, _brick, _tiles, _carpet, _grass, _sand, _stone)
WALLS = (_brick, _plaster, _plaster, _tiles, _wood, _sky, _sky, _stone, _grass)


def make_background(rng: np.random.Generator, width: int, height: int,
                    light: np.ndarray) -> np.ndarray:
    """Return a floor with clutter, in front of a wall, of sky, or of nothing.

    ``light`` is a (3,) unit vector; the image is (H, W, 3) float32 BGR.
    """
    horizon = int(rng.choice([0, height * rng.uniform(0.12, 0.45)]))
    depth = height - horizon
    far, near = rng.uniform(0.1, 0.4), rng.uniform(0.5, 1.2)
    if not horizon:  # the floor is seen from above
        near = far + rng.uniform(0, 0.2)
    corners = np.float32([(-far * width, 0), ((1 + far) * width, 0),
                          ((1 + near) * width, depth), (-near * width, depth)])
    plane = np.float32([(0, 0), (1, 0), (1, 1), (0, 1)]) * PLANE_SIDE
    perspective = cv2.getPerspectiveTransform(plane, corners)
    image = _render(rng.choice(FLOORS), rng, depth, width, perspective)
    if horizon:
        wall = _render(rng.choice(WALLS), rng, horizon, width)
        wall = cv2.GaussianBlur(wall, (0, 0), rng.uniform(0.4, 1.6))
        image = np.concatenate([wall, image])
        edge = rng.integers(1, 7)  # rows of a baseboard or a curb
        strip = image[horizon - edge:horizon]
        strip[:] = strip * 0.3 + np.multiply(random_color(rng), 0.7)
        image[horizon:horizon + 3] = image[horizon:horizon + 3] * 0.6
    return _add_clutter(image, horizon, rng, light)


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


def _add_clutter(image, horizon: int, rng, light: np.ndarray) -> np.ndarray:
    """Draw unlabeled clutter on the floor, which starts at row ``horizon``."""
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
    shift = np.column_stack([np.eye(2), -3 * unit * light[:2]])
    shadow = cv2.warpAffine(cover, np.float32(shift), (width, height))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1.2 * unit).astype(np.float32)
    # The difference to the shifted cover is the slope towards the light.
    rim = cv2.addWeighted(cover, 0.15 / 255, shadow, -0.15 / 255, 0,
                          dtype=cv2.CV_32F)
    shading = np.where(cover > 127, 1 + rim, 1 - 0.5 / 255 * shadow)
    return layer * shading[..., None]


def _random_paths(rng, width, height, horizon, unit) -> list:
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
