"""Canvas on which one object is drawn, with shapes and shading.

The object is drawn in a unit frame: x points right, y points down, and most
of the object is within [-1, 1]. The sketch maps this frame to pixels under a
random pose, so the code of a class contains no pose and no light.
"""
from typing import NamedTuple

import cv2
import numpy as np

from .textures import fractal_noise

FRACTION_BITS = 4  # sub-pixel accuracy of OpenCV's drawing functions


class Sprite(NamedTuple):
    """A drawn object, cropped to its visible pixels."""
    color: np.ndarray  # (h, w, 3) float32 BGR, 0 to 255, premultiplied
    alpha: np.ndarray  # (h, w) float32, 0 to 1


class Sketch:
    """Canvas of (S, S) pixels for one object in a random pose.

    ``side`` is the side of the unit frame in pixels, and ``light`` a (3,) unit
    vector to the light: right, down, towards the viewer.
    """

    def __init__(self, rng, side: float, light: np.ndarray) -> None:
        angle = rng.uniform(-np.pi / 3, np.pi / 3)
        stretch = np.exp(rng.uniform(-0.14, 0.14))
        mirror = rng.choice([-1, 1])
        rotation = np.array([[np.cos(angle), -np.sin(angle)],
                             [np.sin(angle), np.cos(angle)]])
        shape = np.array([[mirror * stretch, rng.uniform(-0.12, 0.12)],
                          [0, 1 / stretch]])
        matrix = rotation @ shape * side / 2
        half = int(side * 0.78)
        inverse = np.linalg.inv(matrix).astype(np.float32)
        line = np.arange(2 * half, dtype=np.float32) - half
        # Coordinates of each pixel in the unit frame.
        self.x = inverse[0, 0] * line[None] + inverse[0, 1] * line[:, None]
        self.y = inverse[1, 0] * line[None] + inverse[1, 1] * line[:, None]
        # (2, 3) affine matrix, unit frame to pixels.
        self.frame = np.column_stack([matrix, [half, half]])
        self.light = light
        self.alpha = np.zeros(self.x.shape, np.uint8)
        # BGR, premultiplied by alpha.
        self.color = np.zeros((*self.x.shape, 3), np.uint8)
        self.shading = np.ones_like(self.x)  # factor of the color
        self.highlight = np.zeros_like(self.x)  # added to the shaded color

    def fill(self, points, color) -> np.ndarray:
        """Fill a polygon (N, 2) and return its mask, (S, S) uint8, 0 or 255.

        The points are in the unit frame; ``color`` is BGR, 0 to 255.
        """
        pixels, mask = [self._to_pixels(points)], np.zeros_like(self.alpha)
        cv2.fillPoly(mask, pixels, 255, cv2.LINE_8, FRACTION_BITS)
        cv2.fillPoly(self.color, pixels, color, cv2.LINE_AA, FRACTION_BITS)
        cv2.fillPoly(self.alpha, pixels, 255, cv2.LINE_AA, FRACTION_BITS)
        return mask

    def stroke(self, points, color, width: float, closed=False) -> None:
        """Draw a line; ``width`` is in units of the frame."""
        scale = np.sqrt(abs(np.linalg.det(self.frame[:, :2])))
        width = max(1, round(width * scale))
        pixels = [self._to_pixels(points)]
        for canvas, value in ((self.color, color), (self.alpha, 255)):
            cv2.polylines(canvas, pixels, closed, value, width, cv2.LINE_AA,
                          FRACTION_BITS)

    def paint(self, mask, pattern, color, opacity=1.0) -> None:
        """Color the pixels that are in a mask and in a boolean pattern."""
        roi = bounding_slices(mask)
        selected = cv2.bitwise_and(mask[roi], pattern[roi].astype(np.uint8))
        old, new = self.color[roi], np.full_like(self.color[roi], color)
        new = cv2.addWeighted(old, 1 - opacity, new, opacity, 0)
        cv2.copyTo(new, selected, old)

    def revolve(self, ys, radii, color, gloss=0.3, foot=0.12) -> tuple:
        """Draw and shade a solid of revolution, seen slightly from above.

        The profile has the given radii at increasing ``ys``; ``foot`` is the
        height of the elliptic foot. Return the mask (S, S) uint8, and
        ``x / radius`` (S, S) float32 within [-1, 1].
        """
        ys, radii = np.asarray(ys, float), np.asarray(radii, float)
        bottom = ellipse(0, ys[-1], radii[-1], foot, 0, 180, 16)
        sides = np.column_stack([radii, ys])
        outline = np.concatenate([sides, bottom, (sides * (-1, 1))[::-1]])
        mask = self.fill(outline, color)
        radius = np.interp(self.y, ys, radii).astype(np.float32)
        across = np.clip(self.x / radius, -1, 1)
        axis = self.frame[:, 0] / np.linalg.norm(self.frame[:, 0])
        ax, ay = axis.tolist()
        nx = across[bounding_slices(mask)]
        self._shade(mask, nx * ax, nx * ay, np.sqrt(1 - nx * nx), gloss)
        return mask, across

    def shade_cushion(self, mask, depth=0.6, gloss=0.0) -> np.ndarray:
        """Shade a part as a cushion and return its mask.

        ``depth`` is the height relative to the half width: a disk of depth 1
        becomes a hemisphere. ``gloss`` is the strength of the highlight.
        """
        inner = cv2.copyMakeBorder(mask[bounding_slices(mask)], 1, 1, 1, 1,
                                   cv2.BORDER_CONSTANT)
        distance = cv2.distanceTransform(inner, cv2.DIST_L2, 3)
        top = max(float(distance.max()), 1.0)
        height = np.sqrt(distance * (2 * top - distance)) * depth
        height = cv2.GaussianBlur(height, (0, 0), 0.6 + top * 0.06)
        nx = -cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)[1:-1, 1:-1]
        ny = -cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)[1:-1, 1:-1]
        nz = 1 / np.sqrt(1 + nx * nx + ny * ny)
        self._shade(mask, nx * nz, ny * nz, nz, gloss)
        return mask

    def shade_plane(self, mask: np.ndarray, normal) -> None:
        """Shade a flat part; its normal (3,) is given in the unit frame."""
        axes = self.frame[:, :2] / np.linalg.norm(self.frame[:, :2], axis=0)
        nx, ny = (axes @ normal[:2]).tolist()
        self._shade(mask, nx, ny, normal[2])

    def _shade(self, mask: np.ndarray, nx, ny, nz, gloss=0.0) -> None:
        """Shade by normals: numbers, or arrays of the bounding box's size."""
        roi = bounding_slices(mask)
        lx, ly, lz = self.light.tolist()
        diffuse = np.maximum(nx * lx + ny * ly + nz * lz, 0) * (0.58 / lz)
        # Blinn-Phong; the viewer is straight above.
        half_way = (nx * lx + ny * ly + nz * (lz + 1)) / np.sqrt(2 + 2 * lz)
        specular = gloss * np.maximum(half_way, 0)**24
        for layer, value in ((self.shading, np.minimum(diffuse + 0.42, 1.4)),
                             (self.highlight, specular)):
            np.copyto(layer[roi], value, where=mask[roi] > 0,
                      casting='same_kind')

    def to_sprite(self, rng, scale: float) -> Sprite:
        """Reduce the sketch by ``scale``, and apply the shading and noise."""
        roi = bounding_slices(self.alpha)
        h, w = (max(round(n / scale), 1) for n in self.alpha[roi].shape)
        color, alpha, shading, highlight = (
            cv2.resize(layer[roi], (w, h), interpolation=cv2.INTER_AREA)
            .astype(np.float32) for layer in
            (self.color, self.alpha, self.shading, self.highlight))
        roughness = rng.uniform(0.1, 0.3)
        shading *= 1 + roughness * fractal_noise(rng, h, w, 8, 4)
        color = color * shading[..., None] + (highlight * alpha)[..., None]
        return Sprite(np.minimum(color, alpha[..., None]), alpha / 255)

    def _to_pixels(self, points) -> np.ndarray:
        """Map (N, 2) points to (N, 1, 2) int32 with ``FRACTION_BITS``."""
        return fixed_point(
            np.asarray(points) @ self.frame[:, :2].T + self.frame[:, 2])


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Convert (N, 2) pixels to OpenCV's (N, 1, 2) int32 fixed-point format."""
    return np.rint(pixels * 2**FRACTION_BITS).astype(np.int32)[:, None]


def ellipse(x, y, rx, ry, start=0, end=360, steps=48) -> np.ndarray:
    """Return points (steps, 2) on an arc from ``start`` to ``end`` degrees."""
    a = np.radians(np.linspace(start, end, steps))
    return np.column_stack([x + rx * np.cos(a), y + ry * np.sin(a)])


def round_corners(points, rounds=3) -> np.ndarray:
    """Smooth a polygon (N, 2) by Chaikin's algorithm; doubles N per round."""
    points = np.asarray(points, dtype=float)
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after,
                           0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    return points


def bounding_slices(mask: np.ndarray) -> tuple:
    """Return the slices (rows, columns) of the box around a uint8 mask."""
    x, y, w, h = cv2.boundingRect(mask)
    return np.s_[y:y + h, x:x + w]
