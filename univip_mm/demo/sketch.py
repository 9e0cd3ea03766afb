"""Canvas on which one object is drawn, with shapes and shading.

The object is drawn in a unit frame: x points right, y points down, and most
of the object is within [-1, 1]. The sketch maps this frame to pixels under a
random pose, so the code of a class contains no pose and no light.
"""
from dataclasses import dataclass

import cv2
import numpy as np

FRACTION_BITS = 4  # sub-pixel accuracy of OpenCV's drawing functions


@dataclass
class Sketch:
    """Canvas of (S, S) pixels for one object.

    Args:
        color (np.ndarray): (S, S, 3) uint8 BGR, premultiplied by alpha.
        alpha (np.ndarray): (S, S) uint8.
        shading (np.ndarray): (S, S) float32. Factor of the color.
        highlight (np.ndarray): (S, S) float32. Added to the shaded color.
        x (np.ndarray): (S, S) float32. x of each pixel in the unit frame.
        y (np.ndarray): (S, S) float32. y of each pixel in the unit frame.
        frame (np.ndarray): (2, 3) affine matrix, unit frame to pixels.
        light (np.ndarray): (3,) unit vector to the light: right, down,
            towards the viewer.
    """
    color: np.ndarray
    alpha: np.ndarray
    shading: np.ndarray
    highlight: np.ndarray
    x: np.ndarray
    y: np.ndarray
    frame: np.ndarray
    light: np.ndarray

    @classmethod
    def in_random_pose(cls, rng: np.random.Generator, side: float,
                       light: np.ndarray) -> 'Sketch':
        """Return an empty sketch with a random rotation, shear and mirror.

        Args:
            rng (np.random.Generator): Source of the pose.
            side (float): Side of the unit frame, pixels.
            light (np.ndarray): (3,) unit vector to the light.
        """
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
        x = inverse[0, 0] * line[None] + inverse[0, 1] * line[:, None]
        y = inverse[1, 0] * line[None] + inverse[1, 1] * line[:, None]
        return cls(
            color=np.zeros((*x.shape, 3), np.uint8),
            alpha=np.zeros(x.shape, np.uint8),
            shading=np.ones_like(x),
            highlight=np.zeros_like(x),
            x=x,
            y=y,
            frame=np.column_stack([matrix, [half, half]]),
            light=light)

    def fill(self, points, color) -> np.ndarray:
        """Fill a polygon and return its mask.

        Args:
            points (array-like): (N, 2) in the unit frame.
            color (tuple): BGR, 0 to 255.

        Returns:
            np.ndarray: (S, S) uint8, 255 inside the polygon and 0 outside.
        """
        pixels = self._to_pixels(points)
        mask = np.zeros_like(self.alpha)
        cv2.fillPoly(mask, [pixels], 255, cv2.LINE_8, FRACTION_BITS)
        cv2.fillPoly(self.color, [pixels], color, cv2.LINE_AA, FRACTION_BITS)
        cv2.fillPoly(self.alpha, [pixels], 255, cv2.LINE_AA, FRACTION_BITS)
        return mask

    def stroke(self, points, color, width: float, closed=False) -> None:
        """Draw a line; ``width`` is in units of the frame."""
        scale = np.sqrt(abs(np.linalg.det(self.frame[:, :2])))
        width = max(1, round(width * scale))
        for canvas, value in ((self.color, color), (self.alpha, 255)):
            cv2.polylines(canvas, [self._to_pixels(points)], closed, value,
                          width, cv2.LINE_AA, FRACTION_BITS)

    def paint(self, mask: np.ndarray, pattern: np.ndarray, color,
              opacity=1.0) -> None:
        """Color the pixels that are in a mask and in a boolean pattern."""
        roi = bounding_slices(mask)
        selected = cv2.bitwise_and(mask[roi], pattern[roi].astype(np.uint8))
        layer = np.full_like(self.color[roi], color)
        if opacity < 1:
            layer = cv2.addWeighted(self.color[roi], 1 - opacity, layer,
                                    opacity, 0)
        cv2.copyTo(layer, selected, self.color[roi])

    def revolve(self, ys, radii, color, gloss=0.3, foot=0.12) -> tuple:
        """Draw and shade a solid of revolution, seen slightly from above.

        Args:
            ys (sequence): Increasing y of the profile's points.
            radii (sequence): Radius at each of ``ys``.
            color (tuple): BGR, 0 to 255.
            gloss (float): Strength of the highlight. Defaults to 0.3.
            foot (float): Height of the elliptic foot. Defaults to 0.12.

        Returns:
            tuple: Mask (S, S) uint8, and ``x / radius`` (S, S) float32
            within [-1, 1].
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

    def shade_cushion(self, mask: np.ndarray, depth=0.6, gloss=0.0) -> None:
        """Shade a part as a cushion; a disk of depth 1 becomes a hemisphere.

        Args:
            mask (np.ndarray): (S, S) uint8.
            depth (float): Height relative to the half width. Defaults to 0.6.
            gloss (float): Strength of the highlight. Defaults to 0.0.
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

    def shade_plane(self, mask: np.ndarray, normal) -> None:
        """Shade a flat part; its normal (3,) is given in the unit frame."""
        axes = self.frame[:, :2] / np.linalg.norm(self.frame[:, :2], axis=0)
        nx, ny = (axes @ normal[:2]).tolist()
        self._shade(mask, nx, ny, normal[2])

    def _shade(self, mask: np.ndarray, nx, ny, nz, gloss=0.0) -> None:
        """Shade a part from its normals in pixels.

        Each of nx, ny and nz is a number, or an array of the size of the
        part's bounding box.
        """
        roi = bounding_slices(mask)
        selected = mask[roi]
        lx, ly, lz = self.light.tolist()
        diffuse = np.maximum(nx * lx + ny * ly + nz * lz, 0) * (0.58 / lz)
        diffuse = np.broadcast_to(np.minimum(diffuse + 0.42, 1.4),
                                  selected.shape)
        cv2.copyTo(diffuse.astype(np.float32), selected, self.shading[roi])
        specular = np.zeros_like(diffuse, np.float32)
        if gloss:  # Blinn-Phong; the viewer is straight above
            length = np.sqrt(2 + 2 * lz)
            half_way = (nx * lx + ny * ly + nz * (lz + 1)) / length
            specular[:] = gloss * np.maximum(half_way, 0)**24
        cv2.copyTo(specular, selected, self.highlight[roi])

    def _to_pixels(self, points) -> np.ndarray:
        """Map (N, 2) points to (N, 1, 2) int32 with ``FRACTION_BITS``."""
        pixels = np.asarray(points) @ self.frame[:, :2].T + self.frame[:, 2]
        return fixed_point(pixels)


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Convert (N, 2) pixels to OpenCV's (N, 1, 2) int32 fixed-point format."""
    return np.rint(pixels * 2**FRACTION_BITS).astype(np.int32)[:, None]


def ellipse(x, y, rx, ry, start=0, end=360, steps=48) -> np.ndarray:
    """Return points (steps, 2) on an arc from ``start`` to ``end`` degrees."""
    a = np.radians(np.linspace(start, end, steps))
    return np.column_stack([x + rx * np.cos(a), y + ry * np.sin(a)])


def round_corners(points, rounds=3) -> np.ndarray:
    """Smooth a closed polygon by Chaikin's algorithm.

    Args:
        points (array-like): (N, 2).
        rounds (int): Number of passes; each one doubles the points. Defaults
            to 3.
    """
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
