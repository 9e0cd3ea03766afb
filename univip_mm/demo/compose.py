"""Composition of a scene: background, clutter, objects and camera effects."""
from typing import NamedTuple

import cv2
import numpy as np

from .backgrounds import make_background
from .objects import CLASSES, draw_object
from .sketch import Sprite, bounding_slices

MIN_SIDE = 96  # pixels of an image; less leaves no room for the objects
MIN_OBJECTS, MAX_OBJECTS = 4, 9
# COCO has 7.3 objects of 2.9 classes per image on average.
MAX_CLASSES = 3
# Shares of an image's shorter side. At 320x240, the longer side of an object
# is about 55 to 150 pixels, and the box of its visible part at least 28.
OBJECT_SIZE = (0.24, 0.62)
MIN_BOX_SIDE = 28 / 240
MIN_INSIDE = 0.8  # share of an object's pixels within the image
MIN_VISIBLE = 0.55  # share of an object's pixels that stay visible
MIN_CONTRAST = 42  # between mean colors of object and background, of 255
PLACES = 12  # tried places per object; the object shrinks every third time


class SceneObject(NamedTuple):
    """An object of a scene."""
    name: str
    mask: np.ndarray  # (H, W) bool, the visible pixels
    bbox: np.ndarray  # (4,) int, xyxy in pixels, tight to the mask


def make_scene(rng: np.random.Generator, size=(320, 240)) -> tuple:
    """Draw a scene.

    Args:
        rng (np.random.Generator): The only source of randomness.
        size (tuple): Width and height, pixels. Defaults to (320, 240).

    Returns:
        tuple: Image (H, W, 3) uint8 BGR, and a list of at least
        ``MIN_OBJECTS`` :class:`SceneObject`, from back to front.

    Raises:
        ValueError: The size is not two integers of at least ``MIN_SIDE``.
    """
    width, height = check_size(size)
    while True:
        light = _random_light(rng)
        background = make_background(rng, width, height, light)
        canvas = _Canvas(background, light)
        _place_objects(canvas, rng)
        if len(canvas.names) >= MIN_OBJECTS:
            return _apply_camera(canvas.pixels, rng), canvas.visible_objects()


def check_size(size) -> tuple:
    """Return width and height as integers, or raise ValueError."""
    if len(size) != 2 or any(
            side != int(side) or side < MIN_SIDE for side in size):
        raise ValueError(f'size is {tuple(size)}, but must be a width and a '
                         f'height of at least {MIN_SIDE} pixels')
    return int(size[0]), int(size[1])


def _random_light(rng) -> np.ndarray:
    """Return a unit vector (3,) to a light that is never from below."""
    a, slant = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.75)
    light = np.array([np.cos(a) * slant, -abs(np.sin(a)) * slant, 0])
    light[2] = np.sqrt(1 - light @ light)
    return light


def _place_objects(canvas: '_Canvas', rng) -> None:
    """Place objects of a few classes at random, from back to front."""
    height, width = canvas.owner.shape
    count = MIN_OBJECTS + rng.binomial(MAX_OBJECTS - MIN_OBJECTS, 0.35)
    num_classes = rng.integers(1, MAX_CLASSES + 1)
    classes = rng.choice(list(CLASSES), num_classes, replace=False)
    names = rng.choice(classes, count).tolist()
    # A near object is low in the image and hides the objects behind it.
    for name, y in zip(names, np.sort(rng.uniform(0.15, 0.9, count))):
        side = np.exp(rng.uniform(*np.log(OBJECT_SIZE)))
        for attempt in range(PLACES):
            if attempt % 3 == 0:
                smaller = side * 0.96**attempt * min(width, height)
                sprite = draw_object(name, rng, smaller, canvas.light)
            h, w = sprite.alpha.shape
            x = rng.uniform(0.06, 0.94)
            corner = int(x * width - w / 2), int(y * height - h / 2)
            if canvas.place(name, sprite, corner):
                break


class _Canvas:
    """A scene under construction, on a background."""

    def __init__(self, pixels: np.ndarray, light: np.ndarray) -> None:
        self.pixels = pixels  # (H, W, 3) float32 BGR, 0 to 255
        self.light = light  # (3,) unit vector
        # Index of the object that is visible at each pixel, -1: none.
        self.owner = np.full(pixels.shape[:2], -1, np.int16)
        self.names: list[str] = []
        self.areas: list[int] = []  # of the whole objects, pixels
        self.min_side = MIN_BOX_SIDE * min(pixels.shape[:2])

    def place(self, name: str, sprite: Sprite, corner: tuple) -> bool:
        """Draw an object if the rules allow it, and return True if drawn.

        The rules: most of the object is in the image, the object contrasts
        with the pixels it covers, and every covered object stays visible.
        ``corner`` is (x, y) of the sprite's upper left pixel.
        """
        x, y = corner
        height, width = self.owner.shape
        h, w = sprite.alpha.shape
        roi = np.s_[max(y, 0):y + h, max(x, 0):x + w]
        inside = np.s_[max(-y, 0):height - y, max(-x, 0):width - x]
        visible = Sprite(sprite.color[inside], sprite.alpha[inside])
        mask = drop_specks(visible.alpha > 0.5)
        area = np.count_nonzero(sprite.alpha > 0.5)
        if (np.count_nonzero(mask) < MIN_INSIDE * area
                or not self._is_large_enough(mask)
                or not self._stands_out(visible.color, mask, roi)):
            return False
        owner = self.owner.copy()
        owner[roi][mask] = len(self.names)
        if not self._keeps_visible(owner, np.unique(self.owner[roi][mask])):
            return False
        self._cast_shadow(sprite.alpha, x, y)
        alpha = visible.alpha[..., None]
        self.pixels[roi] = self.pixels[roi] * (1 - alpha) + visible.color
        self.owner = owner
        self.names.append(name)
        self.areas.append(area)
        return True

    def visible_objects(self) -> list:
        """Return a :class:`SceneObject` per object, from back to front."""
        objects = []
        for number, name in enumerate(self.names):
            mask = drop_specks(self.owner == number)
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            bbox = np.array([x, y, x + w, y + h])
            objects.append(SceneObject(name, mask, bbox))
        return objects

    def _is_large_enough(self, mask: np.ndarray) -> bool:
        w, h = cv2.boundingRect(mask.astype(np.uint8))[2:]
        return (min(w, h) >= self.min_side
                and np.count_nonzero(mask) >= self.min_side**2 / 2)

    def _stands_out(self, color: np.ndarray, mask: np.ndarray, roi) -> bool:
        mask = mask.astype(np.uint8)
        contrast = np.subtract(cv2.mean(color, mask),
                               cv2.mean(self.pixels[roi], mask))
        return np.abs(contrast).max() >= MIN_CONTRAST

    def _keeps_visible(self, owner: np.ndarray, covered: np.ndarray) -> bool:
        """Check the covered objects (numbers, -1: none) in a new ``owner``."""
        rests = ((n, drop_specks(owner == n)) for n in covered[covered >= 0])
        return all(np.count_nonzero(rest) >= MIN_VISIBLE * self.areas[n]
                   and self._is_large_enough(rest) for n, rest in rests)

    def _cast_shadow(self, alpha: np.ndarray, x: int, y: int) -> None:
        """Darken the scene around a sprite whose corner is (x, y)."""
        h, w = alpha.shape
        reach = 0.07 * np.sqrt(h * w) + 1
        border = int(3 * reach)
        around = np.s_[max(y - border, 0):y + h + border,
                       max(x - border, 0):x + w + border]
        offset = np.array([x - around[1].start, y - around[0].start])
        shift = np.column_stack([np.eye(2), offset - reach * self.light[:2]])
        shadow = cv2.warpAffine(alpha, np.float32(shift),
                                self.pixels[around].shape[1::-1])
        cast = cv2.GaussianBlur(shadow, (0, 0), reach)
        contact = cv2.GaussianBlur(shadow, (0, 0), reach / 3)
        self.pixels[around] *= (1 - 0.45 * cast - 0.25 * contact)[..., None]


def drop_specks(mask: np.ndarray) -> np.ndarray:
    """Remove the pieces of a mask (H, W) bool below 4 % of its area.

    Such pieces would enlarge the bounding box.
    """
    mask = mask.astype(np.uint8)
    roi = bounding_slices(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask[roi], connectivity=4)
    if count > 2:
        areas = stats[:, cv2.CC_STAT_AREA]
        keep = areas >= 0.04 * areas[1:].sum()
        keep[0] = False
        mask[roi] = keep[labels]
    return mask > 0


def _apply_camera(pixels: np.ndarray, rng) -> np.ndarray:
    """Apply uneven light, vignette, color cast, blur and sensor noise.

    ``pixels`` are (H, W, 3) float32, 0 to 255; the result is uint8.
    """
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j].astype(np.float32)
    a = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.3) * (np.cos(a) * x + np.sin(a) * y)
    vignette = rng.uniform(0, 0.15) * (x * x + y * y)
    gain = rng.uniform(0.8, 1.15) * (1 + slope - vignette)
    pixels = pixels * gain[..., None] * np.float32(rng.uniform(0.9, 1.1, 3))
    pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 0.8))
    pixels += rng.standard_normal(pixels.shape, np.float32) * rng.uniform(1, 5)
    return np.clip(pixels, 0, 255).astype(np.uint8)
