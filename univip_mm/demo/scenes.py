"""Scenes of several objects, drawn by the project itself: the data set of
the demo, which needs no download.

A class is told by the shape and the structure of its objects. Their colours,
the background, the light, the place, the size and the pose are drawn without
regard to the class, so that neither colour nor background gives a class away.
An image holds objects of few classes, as COCO's do (7.3 objects of 2.9 classes
on average), but any classes go together.

Inside, an object is drawn in its own unit frame: x to the right, y down, most
of it within [-1, 1]. Boxes are xyxy in pixels, x2 and y2 outside.
"""
import colorsys
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np

from ..utils.parallel import map_unordered, number_of_workers
from ..utils.progress import track

VERSION = 2  # of the drawings: a new one makes existing data be made anew
SPLITS = ('train', 'val')
MIN_SIDE = 96  # of an image, pixels: less leaves no room for the objects
MIN_OBJECTS, MAX_OBJECTS = 4, 9
MAX_CLASSES = 3  # in an image
# Shares of an image's shorter side, for 320x240: long sides of about 55 to
# 150 pixels, and boxes of what is visible of at least 28.
OBJECT_SIZE = (0.24, 0.62)
MIN_BOX_SIDE = 28 / 240
MIN_VISIBLE = 0.55  # share of an object's pixels that stays in sight
MIN_CONTRAST = 42  # between an object's mean colour and what it hides, of 255
INSIDE = 0.8  # share of an object's pixels that lies in the image
# Objects are drawn larger, then reduced: by 2, large ones by less.
SCALE, LARGE = 2, 200
WHITE, PALE, INK = (250, 250, 250), (205, 228, 238), (28, 24, 26)


@dataclass
class Sketch:
    """An object while it is drawn, on (S, S) pixels.

    ``colour`` (S, S, 3) uint8 BGR, premultiplied, ``alpha`` (S, S) uint8;
    ``shade`` and ``gloss`` (S, S) float32 multiply and are added at the end;
    ``x``, ``y`` (S, S) float32 are each pixel's place in the unit frame and
    ``frame`` (2, 3) leads from there to pixels; ``light`` (3,) points to the
    light: right, down, to the viewer.
    """
    colour: np.ndarray
    alpha: np.ndarray
    shade: np.ndarray
    gloss: np.ndarray
    x: np.ndarray
    y: np.ndarray
    frame: np.ndarray
    light: np.ndarray


def new_sketch(rng, side: float, light: np.ndarray) -> Sketch:
    """An empty sketch in a random pose, ``side`` pixels for a unit frame."""
    angle = rng.uniform(-np.pi / 3, np.pi / 3)
    stretch = np.exp(rng.uniform(-0.14, 0.14))
    mirror = rng.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)],
                     [np.sin(angle), np.cos(angle)]])
    shape = np.array([[mirror * stretch, rng.uniform(-0.12, 0.12)],
                      [0, 1 / stretch]])
    matrix = turn @ shape * side / 2
    half = int(side * 0.78)
    frame = np.column_stack([matrix, [half, half]])
    inverse = np.linalg.inv(matrix).astype(np.float32)
    line = np.arange(2 * half, dtype=np.float32) - half
    x = inverse[0, 0] * line[None] + inverse[0, 1] * line[:, None]
    y = inverse[1, 0] * line[None] + inverse[1, 1] * line[:, None]
    return Sketch(
        np.zeros((*x.shape, 3), np.uint8), np.zeros(x.shape, np.uint8),
        np.ones_like(x), np.zeros_like(x), x, y, frame, light)


def oval(x, y, rx, ry, start=0, end=360, steps=48) -> np.ndarray:
    """Points (steps, 2) on an arc, from ``start`` to ``end`` degrees."""
    a = np.radians(np.linspace(start, end, steps))
    return np.column_stack([x + rx * np.cos(a), y + ry * np.sin(a)])


def smooth(points, rounds=3) -> np.ndarray:
    """Cut the corners of a closed polygon, (N, 2) to (N * 2**rounds, 2)."""
    points = np.asarray(points, dtype=float)
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after,
                           0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    return points


def to_pixels(s: Sketch, points) -> np.ndarray:
    """Unit frame to pixels (N, 1, 2) int32 with 4 fractional bits."""
    pixels = np.asarray(points) @ s.frame[:, :2].T + s.frame[:, 2]
    return np.rint(pixels * 16).astype(np.int32)[:, None]


def fill(s: Sketch, points, colour) -> np.ndarray:
    """Fill a polygon and tell its pixels, (S, S) uint8 of 0 and 255."""
    pixels = to_pixels(s, points)
    part = np.zeros_like(s.alpha)
    cv2.fillPoly(part, [pixels], 255, cv2.LINE_8, 4)
    cv2.fillPoly(s.colour, [pixels], colour, cv2.LINE_AA, 4)
    cv2.fillPoly(s.alpha, [pixels], 255, cv2.LINE_AA, 4)
    return part


def stroke(s: Sketch, points, colour, width: float, closed=False) -> None:
    """Draw a line ``width`` wide, in units of the frame."""
    scale = np.sqrt(abs(np.linalg.det(s.frame[:, :2])))
    width = max(1, round(width * scale))
    for canvas, value in ((s.colour, colour), (s.alpha, 255)):
        cv2.polylines(canvas, [to_pixels(s, points)], closed, value, width,
                      cv2.LINE_AA, 4)


def paint(s: Sketch, part: np.ndarray, pattern: np.ndarray, colour,
          strength=1.0) -> None:
    """Colour the pixels of a part where the boolean pattern holds."""
    roi = window(part)
    where = cv2.bitwise_and(part[roi], pattern[roi].astype(np.uint8))
    layer = np.full_like(s.colour[roi], colour)
    if strength < 1:
        layer = cv2.addWeighted(s.colour[roi], 1 - strength, layer, strength,
                                0)
    cv2.copyTo(layer, where, s.colour[roi])


def shine(s: Sketch, part: np.ndarray, nx, ny, nz, gloss=0.0) -> None:
    """Light a part whose surface has the normals given, in pixels: each a
    number, or an array for the part's box, see :func:`window`."""
    roi = window(part)
    where = part[roi]
    lx, ly, lz = s.light.tolist()
    lit = np.maximum(nx * lx + ny * ly + nz * lz, 0) * (0.58 / lz)
    lit = np.broadcast_to(np.minimum(lit + 0.42, 1.4), where.shape)
    cv2.copyTo(lit.astype(np.float32), where, s.shade[roi])
    spot = np.zeros_like(lit, np.float32)
    if gloss:  # the mirror image of the light, seen from straight above
        length = np.sqrt(2 + 2 * lz)
        mirror = (nx * lx + ny * ly + nz * (lz + 1)) / length
        spot[:] = gloss * np.maximum(mirror, 0)**24
    cv2.copyTo(spot, where, s.gloss[roi])


def window(part: np.ndarray) -> tuple:
    """The slices of the box around a part's pixels."""
    x, y, w, h = cv2.boundingRect(part)
    return np.s_[y:y + h, x:x + w]


def bulge(s: Sketch, part: np.ndarray, depth=0.6, gloss=0.0) -> None:
    """Light a part as a cushion: a round one of depth 1 is half a ball."""
    inner = cv2.copyMakeBorder(part[window(part)], 1, 1, 1, 1,
                               cv2.BORDER_CONSTANT)
    distance = cv2.distanceTransform(inner, cv2.DIST_L2, 3)
    top = max(float(distance.max()), 1.0)
    height = np.sqrt(distance * (2 * top - distance)) * depth
    height = cv2.GaussianBlur(height, (0, 0), 0.6 + top * 0.06)
    nx = -cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)[1:-1, 1:-1]
    ny = -cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)[1:-1, 1:-1]
    nz = 1 / np.sqrt(1 + nx * nx + ny * ny)
    shine(s, part, nx * nz, ny * nz, nz, gloss)


def turned(s: Sketch, ys, radii, colour, gloss=0.3, foot=0.12):
    """Draw a solid of revolution about the y axis from its profile, seen a
    little from above. Returns its pixels and x / radius at each of them."""
    ys, radii = np.asarray(ys, float), np.asarray(radii, float)
    arc = oval(0, ys[-1], radii[-1], foot, 0, 180, 16)
    sides = np.column_stack([radii, ys])
    part = fill(s, np.concatenate([sides, arc, (sides * (-1, 1))[::-1]]),
                colour)
    across = np.clip(s.x / np.interp(s.y, ys, radii).astype(np.float32), -1, 1)
    ax, ay = (s.frame[:, 0] / np.linalg.norm(s.frame[:, 0])).tolist()
    nx = across[window(part)]
    shine(s, part, nx * ax, nx * ay, np.sqrt(1 - nx * nx), gloss)
    return part, across


def facet(s: Sketch, part: np.ndarray, normal) -> None:
    """Light a flat part whose normal is given in the unit frame."""
    turn = s.frame[:, :2] / np.linalg.norm(s.frame[:, :2], axis=0)
    nx, ny = (turn @ normal[:2]).tolist()
    shine(s, part, nx, ny, normal[2])


def random_colour(rng, low=0.3, high=1.0) -> tuple:
    """Any hue, BGR of 0 to 255, with a value between ``low`` and ``high``."""
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(), rng.uniform(0.1, 0.95), rng.uniform(low, high))
    return (blue * 255, green * 255, red * 255)


def two_colours(rng) -> tuple:
    """Two colours that differ in lightness, in random order."""
    while True:
        first, second = random_colour(rng), random_colour(rng)
        weights = (0.11, 0.59, 0.30)
        if abs(np.dot(np.subtract(first, second), weights)) > 75:
            return first, second


# One function for each class: draw(sketch, rng).


def draw_ball(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    body = fill(s, oval(0, 0, 0.86, 0.86), first)
    x, y = s.x / 0.86, s.y / 0.86
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    spin = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in spin)
    paint(s, body, np.sin(rng.integers(3, 5) * np.arctan2(v, u)) > 0, second)
    paint(s, body, np.abs(w) > 0.95, WHITE)
    bulge(s, body, 0.95, gloss=0.45)


def draw_mug(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    wide, top, low = rng.uniform(0.58, 0.68), -0.62, 0.68
    stroke(s, oval(wide - 0.02, 0.02, 0.34, 0.42, -88, 88), first, 0.17)
    ring = s.alpha.copy()
    bulge(s, ring, 0.8, gloss=0.2)
    body, across = turned(s, [top, low], [wide, wide * 0.9], first, 0.35)
    height = s.y - 0.13 * np.sqrt(1 - across * across)
    for place in rng.permutation([-0.3, 0.05, 0.4])[:rng.integers(1, 3)]:
        paint(s, body, np.abs(height - place) < 0.09, second)
    rim = fill(s, oval(0, top, wide, 0.19), first)
    facet(s, rim, (0, -0.5, 0.86))
    hollow = fill(s, oval(0, top + 0.02, wide - 0.09, 0.13), first)
    s.shade[hollow > 0] = 0.38
    drink = fill(s, oval(0, top + 0.07, wide - 0.16, 0.08), (30, 45, 70))
    s.shade[drink > 0] = 0.8


def draw_book(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    corner, across = np.array([-0.92, -0.72]), np.array([1.3, -0.14])
    down, thick = np.array([0.36, 1.1]), np.array([0, rng.uniform(.24, .36)])

    def at(a, b, c=0.0):
        return corner + a * across + b * down + c * thick

    spine = fill(s, [at(0, 0), at(0, 1), at(0, 1, 1), at(0, 0, 1)], first)
    for b in (0.15, 0.25, 0.75, 0.85):
        stroke(s, [at(0, b), at(0, b, 1)], second, 0.04)
    facet(s, spine, (-0.8, 0.3, 0.5))
    pages = fill(s, [at(0, 1), at(1, 1), at(1, 1, 1), at(0, 1, 1)], PALE)
    for c in np.linspace(0.2, 0.8, 4):
        stroke(s, [at(0, 1, c), at(1, 1, c)], (110, 135, 150), 0.015)
    stroke(s, [at(0, 1, 0.97), at(1, 1, 0.97)], first, 0.05)
    facet(s, pages, (0, 0.75, 0.66))
    cover = fill(s, [at(0, 0), at(1, 0), at(1, 1), at(0, 1)], first)
    frame = [at(.1, .08), at(.92, .08), at(.92, .92), at(.1, .92)]
    stroke(s, frame, second, 0.03, closed=True)
    fill(s, [at(.22, .2), at(.8, .2), at(.8, .36), at(.22, .36)], second)
    for b in (0.5, 0.6, 0.7, 0.8)[:rng.integers(2, 5)]:
        stroke(s, [at(0.24, b), at(rng.uniform(.5, .78), b)], second, 0.04)
    facet(s, cover, (0, -0.3, 0.95))


def draw_star(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    inner = rng.uniform(0.42, 0.5)
    corners = oval(0, 0.05, 1, 1, -90, 270, 11)[:-1]
    corners[1::2] *= inner
    corners = np.stack([corners * 1.04, corners * 1.04], 1).reshape(-1, 2)
    outline = smooth(corners, 3)
    body = fill(s, outline, first)
    for piece in np.array_split(outline * 0.78, 32)[::2]:
        stroke(s, piece, second, 0.035)
    for side in (-0.17, 0.17):
        fill(s, oval(side, -0.1, 0.08, 0.1), INK)
        fill(s, oval(side - 0.02, -0.13, 0.03, 0.03), WHITE)
    stroke(s, oval(0, 0.1, 0.14, 0.1, 10, 170), INK, 0.045)
    bulge(s, body, 0.8)


def draw_leaf(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    teeth, wide = rng.integers(9, 14), rng.uniform(0.46, 0.6)
    t = np.linspace(0, 1, teeth * 6)
    saw = 1 + 0.13 * ((t * teeth) % 1 - 0.5)
    half = wide * np.sin(np.pi * t**0.8)**0.9 * saw
    edge = np.column_stack([half, 1.75 * t - 0.75])[::-1]
    stroke(s, [(0, 0.9), (0.04, 1.0), (0.1, 1.12)], second, 0.09)
    body = fill(s, np.concatenate([edge * (1, -1), edge[::-1] * (-1, -1)])
                + (0, 0.12), first)
    paint(s, body, s.x < 0, INK, 0.18)
    paint(s, body, s.x > 0, WHITE, 0.1)
    for y in np.linspace(-0.5, 0.65, 7):
        reach = np.interp(0.12 - y + 0.2, edge[::-1, 1], edge[::-1, 0])
        for side in (-1, 1):
            stroke(s, [(0, y), (side * reach * 0.5, y - 0.14),
                       (side * reach * 0.86, y - 0.27)], second, 0.03)
    stroke(s, [(0, -0.8), (0, 0.95)], second, 0.06)
    bulge(s, body, 0.35)


def draw_fish(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    high = rng.uniform(0.42, 0.54)
    fins = [[(-.35, -.25), (-.1, -high - .32), (.4, -high - .2), (.45, -.2)],
            [(-.2, .25), (.1, high + .28), (.35, high + .1), (.3, .2)],
            [(.5, 0), (.75, -.1), (1.08, -.52), (.95, 0), (1.08, .52),
             (.75, .1)]]
    for fin in fins:
        part = fill(s, smooth(fin, 2), second)
        paint(s, part, np.sin(s.x * 42 + s.y * 16) > 0.3, INK, 0.35)
        bulge(s, part, 0.4)
    body = fill(s, smooth([(-1, .05), (-.75, -.3), (-.3, -high), (.15, -high),
                           (.85, -.13), (.85, .13), (.15, high), (-.3, high),
                           (-.75, .32)], 3), first)
    # Scales: arcs of circles on a grid whose every second row is shifted.
    row = np.floor(s.y / 0.14)
    u = (s.x / 0.17 + 0.5 * (row % 2)) % 1 - 1
    v = s.y / 0.14 - row - 0.5
    radius = u * u + 1.1 * v * v
    scales = (radius > 0.45) & (radius < 0.95) & (s.x > -0.45)
    paint(s, body, scales, second, 0.75)
    stroke(s, oval(-.68, 0.02, 0.24, 0.34, -65, 65), INK, 0.045)
    bulge(s, body, 0.75, gloss=0.2)
    fill(s, oval(-0.7, -0.1, 0.12, 0.12), WHITE)
    fill(s, oval(-0.72, -0.1, 0.065, 0.065), INK)
    stroke(s, [(-0.97, 0.12), (-0.78, 0.16)], INK, 0.04)


def draw_bottle(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    wide, neck, shoulder = (rng.uniform(0.4, 0.52), rng.uniform(0.15, 0.2),
                            rng.uniform(-0.3, -0.1))
    ys = [-0.95, -0.55, shoulder - 0.12, shoulder, 0.92]
    radii = [neck, neck, wide * 0.86, wide, wide]
    body, across = turned(s, ys, radii, first, gloss=0.7)
    curve = s.y - 0.1 * np.sqrt(1 - across * across)
    label = (curve > shoulder + 0.2) & (curve < 0.68)
    paint(s, body, label, second)
    for place in (0.28, 0.4, 0.5):
        paint(s, body, label & (np.abs(curve - place) < 0.025)
              & (np.abs(across) < 0.6), first)
    paint(s, body, label & ((across / 0.4)**2 + ((curve - 0.12) / .1)**2 < 1),
          first)
    paint(s, body, (curve < shoulder - 0.2) & (curve > shoulder - 0.3), INK,
          0.25)
    _, across = turned(s, [-1.1, -0.84], [neck + 0.05] * 2, second, 0.2, 0.05)
    s.shade[(np.sin(across * 16) > 0.5) & (s.y < -0.8)] *= 0.8


def draw_cube(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    cells, lean = rng.integers(3, 5), rng.uniform(0.34, 0.48)
    left, right = np.array([-0.8, -lean]), np.array([0.8, -lean])
    up, low = np.array([0, -0.92]), np.array([0, 0.88])
    faces = [(low, left, up, (-0.7, 0.4, 0.6)),
             (low, right, up, (0.7, 0.4, 0.6)),
             (low + up, left, right, (0, -0.75, 0.66))]
    for corner, a, b, normal in faces:
        part = fill(s, [corner, corner + a, corner + a + b, corner + b], first)
        for i in range(cells):
            for j in range(i % 2, cells, 2):
                cell = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
                fill(s, corner + np.array(cell) / cells @ [a, b], second)
        facet(s, part, normal)


def draw_flower(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    petals = rng.integers(5, 9)
    wide = min(0.36, 1.75 / petals)
    for angle in np.linspace(0, 2 * np.pi, petals, endpoint=False):
        turn = np.array([[np.cos(angle), np.sin(angle)],
                         [-np.sin(angle), np.cos(angle)]])
        petal = smooth([(.1, 0), (.45, -wide), (.9, -wide), (1.02, -.1),
                        (1.02, .1), (.9, wide), (.45, wide)], 2)
        part = fill(s, petal @ turn, first)
        for bend in (-0.35, 0, 0.35):
            ray = np.array([(0.3, bend * 0.15), (0.75, bend * wide)])
            stroke(s, ray @ turn, second, 0.03)
        bulge(s, part, 0.7)
    heart = fill(s, oval(0, 0, 0.3, 0.3), second)
    for k in range(26):  # seeds, in the spiral of a sunflower
        r, a = 0.27 * np.sqrt((k + 0.5) / 26), k * 2.39996
        fill(s, oval(r * np.cos(a), r * np.sin(a), 0.03, 0.03, steps=8), INK)
    bulge(s, heart, 0.7)


def draw_mushroom(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    pale = random_colour(rng, 0.6)
    thin = rng.uniform(0.2, 0.27)
    turned(s, [-0.1, 0.35, 0.75, 0.92], [thin, thin, thin * 1.3, thin * 1.4],
           pale, 0.1)
    ring = fill(s, smooth([(-.34, .42), (-.24, .2), (.24, .2), (.34, .42),
                           (0, .5)], 2), pale)
    bulge(s, ring, 0.6)
    gills = fill(s, oval(0, 0.02, 0.86, 0.17), pale)
    paint(s, gills, np.sin(np.arctan2(s.x, s.y + 0.5) * 40) > 0, INK, 0.4)
    s.shade[gills > 0] = 0.65
    tall = rng.uniform(0.82, 1.0)
    cap = fill(s, np.concatenate([oval(0, 0.0, 0.95, tall, 180, 360),
                                  oval(0, 0.0, 0.95, 0.1, 0, 180)]), first)
    spots = np.zeros_like(s.x, dtype=bool)
    for x, y in [(-.62, -.2), (-.3, -.52), (-.12, -.12), (.2, -.66),
                 (.36, -.3), (.72, -.16), (-.02, -.82)]:
        x, y = np.add((x, y), rng.uniform(-0.06, 0.06, 2))
        r = rng.uniform(0.09, 0.15)
        spots |= ((s.x - x) / r)**2 + ((s.y - y * tall) / r / 0.8)**2 < 1
    paint(s, cap, spots, second)
    bulge(s, cap, 0.75, gloss=0.2)


def draw_butterfly(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    spot = random_colour(rng)
    upper = smooth([(.05, -.1), (.3, -.75), (.85, -.98), (1.08, -.7),
                    (.92, -.2), (.5, .08)])
    lower = smooth([(.05, .05), (.5, .0), (.88, .2), (.85, .6), (.5, .92),
                    (.3, .6)])
    for side in (-1, 1):
        for wing, heart in ((lower, (.52, .4)), (upper, (.66, -.52))):
            flip = np.array([side, 1])
            part = fill(s, wing * flip, second)
            inner = (wing - heart) * 0.8 + heart
            fill(s, inner * flip, first)
            for tip in inner[4:-8:6]:
                stroke(s, [(0.08 * side, 0), tip * flip], second, 0.025)
            for r, colour in ((.2, second), (.14, spot), (.06, WHITE)):
                fill(s, oval(heart[0] * side, heart[1], r, r), colour)
            bulge(s, part, 0.3)
    for side in (-1, 1):
        stroke(s, [(0, -.4), (.1 * side, -.75), (.26 * side, -.95)], INK, 0.04)
        fill(s, oval(.27 * side, -.96, .05, .05), INK)
    body = fill(s, oval(0, 0.02, 0.1, 0.55), (50, 60, 75))
    paint(s, body, np.sin(s.y * 40) > 0.4, INK)
    bulge(s, body, 0.8)


def draw_clock(s: Sketch, rng) -> None:
    first, second = two_colours(rng)
    for side in (-1, 1):
        stroke(s, [(0.4 * side, 0.5), (0.62 * side, 0.98)], first, 0.16)
        bell = fill(s, oval(.5 * side, -.66, .34, .3) @ np.array(
            [[1, .25 * side], [-.25 * side, 1]]) + (-.17 * side, 0), second)
        bulge(s, bell, 0.9, gloss=0.5)
    stroke(s, [(0, -0.7), (0, -1.0)], first, 0.1)
    rim = fill(s, oval(0, 0.1, 0.78, 0.78), first)
    bulge(s, rim, 0.9, gloss=0.3)
    face = fill(s, oval(0, 0.1, 0.62, 0.62), second)
    for hour in range(12):
        way = np.array([np.sin(hour * np.pi / 6), np.cos(hour * np.pi / 6)])
        start = 0.44 if hour % 3 == 0 else 0.5
        stroke(s, [way * start + (0, .1), way * .56 + (0, .1)], first, 0.05)
    for reach, width in ((0.44, 0.06), (0.3, 0.09)):
        a = rng.uniform(0, 2 * np.pi)
        stroke(s, [(0, 0.1), (reach * np.cos(a), 0.1 + reach * np.sin(a))],
               first, width)
    fill(s, oval(0, 0.1, 0.07, 0.07), INK)
    facet(s, face, (0, 0, 1))


CLASSES = dict(
    ball=draw_ball, mug=draw_mug, book=draw_book, star=draw_star,
    leaf=draw_leaf, fish=draw_fish, bottle=draw_bottle, cube=draw_cube,
    flower=draw_flower, mushroom=draw_mushroom, butterfly=draw_butterfly,
    clock=draw_clock)


def draw_object(name: str, rng, side: float, light: np.ndarray) -> tuple:
    """Draw one object.

    Args:
        name (str): Its class, one of ``CLASSES``.
        rng (np.random.Generator): Where pose and colours come from.
        side (float): Side of its unit frame in the image, pixels.
        light (np.ndarray): (3,), see :class:`Sketch`.

    Returns:
        tuple: Premultiplied colour (h, w, 3) float32 of 0 to 255 and alpha
        (h, w) float32 of 0 to 1, cut to what is not empty.
    """
    scale = min(SCALE, max(LARGE / side, 1))
    s = new_sketch(rng, side * scale, light)
    CLASSES[name](s, rng)
    roi = window(s.alpha)
    h, w = (max(round(n / scale), 1) for n in s.alpha[roi].shape)
    colour, alpha, shade, gloss = (
        cv2.resize(part[roi], (w, h), interpolation=cv2.INTER_AREA).astype(
            np.float32) for part in (s.colour, s.alpha, s.shade, s.gloss))
    shade *= 1 + rng.uniform(0.1, 0.3) * fractal(rng, h, w, cells=8, octaves=4)
    colour = colour * shade[..., None] + (gloss * alpha)[..., None]
    return np.minimum(colour, alpha[..., None]), alpha / 255


# Backgrounds. A material is a tone (h, w) float32 of 0 to 1, made once for
# the texture, and the colours that the tones 0 to 1 run through.


def fractal(rng, h, w, cells=4, octaves=5, stretch=1.0) -> np.ndarray:
    """Noise of several octaves (h, w) float32, about -1 to 1; ``stretch``
    makes it longer along x."""
    total = np.zeros((h, w), np.float32)
    for octave in range(octaves):
        n = cells * 2**octave
        if n > 2 * max(h, w):
            break
        grid = rng.random((n, max(int(n / stretch), 2)), dtype=np.float32)
        grid = (grid - 0.5) * 0.62**octave
        total += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
    return total * 1.6


def blocks(rng, h, w, wide, high, shift) -> tuple:
    """A wall of blocks: tone of each pixel's block, and where joints are."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    row = y // high
    x = x + row * shift * wide
    column = x // wide
    table = rng.random(4096, dtype=np.float32)
    tone = table[(row * 57 + column).astype(int) % 4096]
    joint = (x - column * wide < 2.5) | (y - row * high < 2.5)
    return tone, joint


def earth(rng, hue, low=0.25, high=0.85, grey=0.5) -> list:
    """Three shades, dark to light, of about one hue."""
    saturation = rng.uniform(0.1, grey)
    top = rng.uniform((low + high) / 2, high)
    return [tuple(255 * c for c in colorsys.hsv_to_rgb(
        (hue + rng.uniform(-0.02, 0.02)) % 1, saturation, v))[::-1]
        for v in (top * rng.uniform(0.4, 0.6), top * 0.8, top)]


def wood(rng, h, w):
    grain = fractal(rng, h, w, 16, 5, stretch=10)
    planks, joint = blocks(rng, h, w, rng.uniform(.5, 1.2) * w,
                           rng.uniform(.08, .2) * h, 0.37)
    tone = 0.55 + 0.3 * grain + 0.35 * (planks - 0.5)
    return np.where(joint, 0.05, tone), earth(rng, rng.uniform(.04, .1))


def brick(rng, h, w):
    high = rng.uniform(0.05, 0.09) * h
    tone, joint = blocks(rng, h, w, high * 2.3, high, 0.5)
    tone = 0.35 + 0.4 * tone + 0.2 * fractal(rng, h, w, 16, 5)
    return np.where(joint, rng.choice([0.02, 0.95]), tone), earth(
        rng, rng.choice([rng.uniform(0, 0.06), rng.uniform()]))


def tiles(rng, h, w):
    high = rng.uniform(0.1, 0.2) * h
    tone, joint = blocks(rng, h, w, high, high, 0)
    tone = 0.6 + rng.uniform(0.1, 0.5) * (tone - 0.5)
    return np.where(joint, 0.1, tone + 0.15 * fractal(rng, h, w)), earth(
        rng, rng.uniform(), grey=0.3)


def carpet(rng, h, w):
    y, x = np.mgrid[:h, :w].astype(np.float32)
    step = rng.uniform(0.05, 0.15) * w
    weave = np.sin(x / step * 6) * rng.choice([0, 1]) + np.sin(y / step * 6)
    return (0.5 + 0.1 * weave + 0.25 * fractal(rng, h, w, 6)
            + 0.16 * rng.standard_normal((h, w), np.float32)), earth(
                rng, rng.uniform())


def grass(rng, h, w):
    tone = 0.5 + 0.25 * fractal(rng, h, w, 5) + 0.5 * fractal(
        rng, w, h, 48, 3, stretch=5).T
    return tone, earth(rng, rng.uniform(.16, .3), high=.75, grey=.7)


def sand(rng, h, w):
    y = np.arange(h, dtype=np.float32)[:, None]
    ripple = np.sin(y * rng.uniform(0.1, 0.3) + 5 * fractal(rng, h, w, 3, 3))
    return (0.6 + 0.12 * ripple + 0.15 * fractal(rng, h, w, 8)
            + 0.08 * rng.standard_normal((h, w), np.float32)), earth(
                rng, rng.uniform(.07, .14), low=.5, high=.95, grey=.4)


def stone(rng, h, w):
    veins = np.abs(fractal(rng, h, w, 4))
    return (0.25 + 0.9 * np.sqrt(veins) + 0.2 * fractal(rng, h, w, 24, 4)
            ), earth(rng, rng.uniform(), grey=0.25)


def plaster(rng, h, w):
    x = np.arange(w, dtype=np.float32)[None]
    stripes = np.sign(np.sin(x * rng.uniform(0.08, 0.3)))
    return (0.6 + 0.18 * fractal(rng, h, w, 3, 6)
            + rng.choice([0, 0.12]) * stripes), earth(rng, rng.uniform())


def sky(rng, h, w):
    y = np.linspace(0, 0.5, h, dtype=np.float32)[:, None]
    shades = earth(rng, rng.uniform(.52, .62), low=.6, high=1, grey=.6)
    clouds = np.maximum(fractal(rng, h, w, 3, 5, stretch=1.6), 0)
    return 0.25 + y + 0.7 * clouds, [shades[1], shades[2], PALE, WHITE]


FLOORS = (wood, brick, tiles, carpet, grass, sand, stone)
WALLS = (brick, plaster, plaster, tiles, wood, sky, sky, stone, grass)


def texture(rng, material, h, w, perspective=None) -> np.ndarray:
    """A material in colour, (h, w, 3) uint8, seen flat or through the (3, 3)
    ``perspective`` of a plane of 400 pixels a side."""
    plane = (400, 400) if perspective is not None else (h, w)
    tone, shades = material(rng, *plane)
    tone = np.clip(tone * 255, 0, 255).astype(np.uint8)
    if perspective is not None:
        tone = cv2.warpPerspective(tone, perspective, (w, h),
                                   flags=cv2.INTER_LINEAR,
                                   borderMode=cv2.BORDER_REFLECT)
    stops = np.linspace(0, 255, len(shades))
    lut = np.stack([np.interp(np.arange(256), stops, channel)
                    for channel in zip(*shades)], axis=1)
    return cv2.applyColorMap(tone, lut.astype(np.uint8)[:, None])


def make_background(rng, width: int, height: int) -> tuple:
    """A floor seen from above, or a floor and what is behind it: (H, W, 3)
    uint8, and the first row of the floor."""
    horizon = int(rng.choice([0, height * rng.uniform(0.12, 0.45)]))
    deep = height - horizon
    far, near = rng.uniform(0.1, 0.4), rng.uniform(0.5, 1.2)
    if not horizon:
        near = far + rng.uniform(0, 0.2)
    corners = np.float32([(-far * width, 0), ((1 + far) * width, 0),
                          ((1 + near) * width, deep), (-near * width, deep)])
    plane = np.float32([(0, 0), (400, 0), (400, 400), (0, 400)])
    perspective = cv2.getPerspectiveTransform(plane, corners)
    floor = texture(rng, rng.choice(FLOORS), deep, width, perspective)
    if not horizon:
        return floor, 0
    back = texture(rng, rng.choice(WALLS), horizon, width)
    back = cv2.GaussianBlur(back, (0, 0), rng.uniform(0.4, 1.6))
    image = np.concatenate([back, floor])
    edge = rng.integers(1, 7)  # a skirting board, a kerb, or a mere shade
    strip = image[horizon - edge:horizon]
    strip[:] = strip * 0.3 + np.multiply(random_colour(rng), 0.7)
    image[horizon:horizon + 3] = image[horizon:horizon + 3] * 0.6
    return image, horizon


def add_clutter(image: np.ndarray, horizon: int, rng, light) -> np.ndarray:
    """Strew pebbles, twigs, scraps and a cord, none of them labelled, below
    the horizon of an image (H, W, 3) uint8. Returns (H, W, 3) float32."""
    height, width = image.shape[:2]
    unit = min(height, width) / 240
    layer, cover = image.copy(), np.zeros((height, width), np.uint8)
    paths = []  # points, and the width of a line or 0 to fill
    for _ in range(rng.integers(8, 36)):
        place = rng.uniform((0, horizon), (width, height))
        kind = rng.choice(3)
        if kind == 0:  # a pebble
            points = oval(*place, *rng.uniform(1.5, 5.5, 2) * unit, steps=14)
        elif kind == 1:  # a scrap
            points = place + rng.uniform(-6, 6, (4, 2)) * unit
            points = cv2.convexHull(np.float32(points))[:, 0]
        else:  # a twig
            steps = rng.normal(0, 5, 2) + rng.normal(0, 2, (4, 2))
            points = place + np.cumsum(steps * unit, axis=0)
        paths.append((points, 1.6 * (kind == 2)))
    if rng.random() < 0.4:
        wave = rng.uniform(0.2, 1) + 0.4 * fractal(rng, 1, 60, 2, 2)[0]
        points = np.column_stack([np.linspace(-0.1, 1.1, 60), wave])
        paths.append((points * (width, height - horizon) + (0, horizon),
                      rng.uniform(1, 4)))
    for points, line in paths:
        pixels = [np.rint(points * 16).astype(np.int32)[:, None]]
        x, y = np.clip(points[0], 0, (width - 1, height - 1)).astype(int)
        colour = np.add(image[y, x] * 0.4, random_colour(rng, 0.15)) * 0.7
        for canvas, value in ((layer, colour.tolist()), (cover, 255)):
            if line:
                cv2.polylines(canvas, pixels, False, value,
                              max(1, round(line * unit)), cv2.LINE_AA, 4)
            else:
                cv2.fillPoly(canvas, pixels, value, cv2.LINE_AA, 4)
    shift = np.float32([[1, 0, -3 * unit * light[0]],
                        [0, 1, -3 * unit * light[1]]])
    shadow = cv2.warpAffine(cover, shift, (width, height))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1.2 * unit).astype(np.float32)
    # Lit where the light comes from: the cover's slope shades its rim.
    rim = cv2.addWeighted(cover, 0.15 / 255, shadow, -0.15 / 255, 0,
                          dtype=cv2.CV_32F)
    dark = np.where(cover > 127, 1 + rim, 1 - 0.5 / 255 * shadow)
    return layer * dark[..., None].astype(np.float32)


def put_object(scene, owner, objects: list, sprite: tuple, corner,
               light: np.ndarray) -> bool:
    """Put a sprite into the scene, or tell that it may not go there.

    ``owner`` (H, W) holds the number of the object on top, or -1. The rules:
    most of the sprite is inside, it stands out, and it leaves enough in sight
    of those it hides.
    """
    height, width = owner.shape
    h, w = sprite[1].shape
    (x1, y1), (x2, y2) = corner, np.add(corner, (w, h))
    left, top, right, bottom = (max(x1, 0), max(y1, 0), min(x2, width),
                                min(y2, height))
    if left >= right or top >= bottom:
        return False
    roi = np.s_[top:bottom, left:right]
    inside = np.s_[top - y1:bottom - y1, left - x1:right - x1]
    colour, alpha = (part[inside] for part in sprite)
    mask = drop_specks(alpha > 0.5)
    full = np.count_nonzero(sprite[1] > 0.5)
    smallest = MIN_BOX_SIDE * min(width, height)
    if (np.count_nonzero(mask) < INSIDE * full
            or not large_enough(mask, smallest)):
        return False
    where = mask.astype(np.uint8)
    contrast = np.subtract(cv2.mean(colour, where),
                           cv2.mean(scene[roi], where))
    if np.abs(contrast).max() < MIN_CONTRAST:
        return False
    after = owner.copy()
    after[roi][mask] = len(objects)
    for number in np.unique(owner[roi][mask]):
        rest = drop_specks(after == number)
        if number >= 0 and not (
                np.count_nonzero(rest) >= MIN_VISIBLE * objects[number]['full']
                and large_enough(rest, smallest)):
            return False
    reach = 0.07 * np.sqrt(h * w) + 1
    border = int(3 * reach)
    around = np.s_[max(y1 - border, 0):y2 + border,
                   max(x1 - border, 0):x2 + border]
    shift = np.float32([[1, 0, x1 - around[1].start - reach * light[0]],
                        [0, 1, y1 - around[0].start - reach * light[1]]])
    shadow = cv2.warpAffine(sprite[1], shift, scene[around].shape[1::-1])
    scene[around] *= (1 - 0.45 * cv2.GaussianBlur(shadow, (0, 0), reach)
                      - 0.25 * cv2.GaussianBlur(shadow, (0, 0), reach / 3)
                      )[..., None]  # cast, and where it touches
    scene[roi] = scene[roi] * (1 - alpha[..., None]) + colour
    owner[:] = after
    objects.append(dict(full=full))
    return True


def drop_specks(mask: np.ndarray) -> np.ndarray:
    """The mask (H, W) without pieces of less than 4 % of its area, which
    would stretch its box."""
    mask = mask.astype(np.uint8)
    roi = window(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask[roi], connectivity=4)
    if count > 2:
        areas = stats[:, cv2.CC_STAT_AREA]
        keep = areas >= 0.04 * areas[1:].sum()
        keep[0] = False
        mask[roi] = keep[labels]
    return mask > 0


def large_enough(mask: np.ndarray, smallest: float) -> bool:
    """Whether both sides of what a mask holds reach ``smallest``, and its
    area half of that square."""
    w, h = cv2.boundingRect(mask.astype(np.uint8))[2:]
    return min(w, h) >= smallest and np.count_nonzero(mask) >= smallest**2 / 2


def finish(scene: np.ndarray, rng) -> np.ndarray:
    """Light falling off, vignette, colour cast, blur and the sensor's noise:
    (H, W, 3) float32 of 0 to 255 to uint8."""
    height, width = scene.shape[:2]
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j].astype(np.float32)
    a = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.3) * (np.cos(a) * x + np.sin(a) * y)
    vignette = rng.uniform(0, 0.15) * (x * x + y * y)
    gain = rng.uniform(0.8, 1.15) * (1 + slope - vignette)
    scene = scene * gain[..., None] * np.float32(rng.uniform(0.9, 1.1, 3))
    scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.3, 0.8))
    scene += rng.standard_normal(scene.shape, np.float32) * rng.uniform(1, 5)
    return np.clip(scene, 0, 255).astype(np.uint8)


def make_scene(rng: np.random.Generator, size=(320, 240)) -> tuple:
    """Draw a scene.

    Args:
        rng (np.random.Generator): All that is random comes from it.
        size (tuple): Width and height, pixels. Defaults to (320, 240).

    Returns:
        tuple: The image (H, W, 3) uint8 BGR, and a list of at least
        ``MIN_OBJECTS`` objects from back to front, each a dict of ``name``,
        its class; ``mask`` (H, W) bool, what is visible of it; ``bbox`` (4,)
        int, xyxy in pixels, tight to the mask.

    Raises:
        ValueError: The size is not two integers of at least ``MIN_SIDE``.
    """
    width, height = check_size(size)
    a, slant = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.75)
    light = np.array([np.cos(a) * slant, -abs(np.sin(a)) * slant, 0])
    light[2] = np.sqrt(1 - light @ light)
    scene = add_clutter(*make_background(rng, width, height), rng, light)
    owner = np.full((height, width), -1, np.int16)
    count = MIN_OBJECTS + rng.binomial(MAX_OBJECTS - MIN_OBJECTS, 0.35)
    few = rng.choice(list(CLASSES), rng.integers(1, MAX_CLASSES + 1), False)
    names = rng.choice(few, count).tolist()
    objects = []
    # The nearer an object, the lower it stands and the later it is drawn.
    for name, y in zip(names, np.sort(rng.uniform(0.15, 0.9, count))):
        side = np.exp(rng.uniform(*np.log(OBJECT_SIZE)))
        for attempt in range(12):
            if attempt % 3 == 0:  # another, smaller
                shrunk = side * 0.96**attempt * min(width, height)
                sprite = draw_object(name, rng, shrunk, light)
            h, w = sprite[1].shape
            corner = (int(rng.uniform(0.06, 0.94) * width - w / 2),
                      int(y * height - h / 2))
            if put_object(scene, owner, objects, sprite, corner, light):
                objects[-1]['name'] = name
                break
    if len(objects) < MIN_OBJECTS:
        return make_scene(rng, size)
    found = []
    for number, thing in enumerate(objects):
        mask = drop_specks(owner == number)
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        found.append(dict(name=thing['name'], mask=mask,
                          bbox=np.array([x, y, x + w, y + h])))
    return finish(scene, rng), found


def check_size(size) -> tuple:
    """Width and height.

    Raises:
        ValueError: They are not two integers of at least ``MIN_SIDE``.
    """
    if len(size) != 2 or any(
            side != int(side) or side < MIN_SIDE for side in size):
        raise ValueError(f'size is {tuple(size)}, but it must be a width and '
                         f'a height of at least {MIN_SIDE} pixels')
    return int(size[0]), int(size[1])


def make_scenes(out_dir: Union[str, os.PathLike],
                num_train: int = 2000,
                num_val: int = 400,
                seed: int = 0,
                size=(320, 240),
                workers: Optional[int] = None) -> dict:
    """Write the data set: ``train/000001.jpg`` and so on, ``val/``, and
    ``annotations/train.json`` and ``val.json`` in the COCO format.

    An image depends on the seed, its split and its number alone. Boxes, areas
    and polygons are those of what is visible. Data made with the same
    arguments is left as it is; any other is replaced once the new one is
    complete, so that a run that was cut short can simply be repeated.

    Args:
        out_dir (str or PathLike): The folder of the data set.
        num_train (int): Images to train on. Defaults to 2000.
        num_val (int): Images to evaluate on. Defaults to 400.
        seed (int): Non-negative. Defaults to 0.
        size (tuple): Width and height, pixels. Defaults to (320, 240).
        workers (int, optional): Processes. Defaults to None, one for each
            core that this process may use.

    Returns:
        dict: ``made`` (bool), whether anything was written, ``images`` and
        ``objects`` (int), ``per_class`` (dict of name to objects), and
        ``seconds`` (float).

    Raises:
        ValueError: An argument is out of its range, or ``out_dir`` holds
            something else.
    """
    start = time.time()
    out_dir, counts = Path(out_dir), dict(train=num_train, val=num_val)
    workers = number_of_workers(workers)
    for name, value, least in (('num_train', num_train, 1),
                               ('num_val', num_val, 1), ('seed', seed, 0)):
        if value < least:
            raise ValueError(f'{name} is {value}, but must be at least '
                             f'{least}')
    parameters = dict(version=VERSION, seed=seed, size=list(check_size(size)),
                      **{f'num_{split}': counts[split] for split in SPLITS})
    part = out_dir / '.part'  # its presence marks the folder as made here
    contents = read_annotations(out_dir)
    made = not is_complete(out_dir, contents, parameters)
    if made:
        folders = [out_dir / name for name in (*SPLITS, 'annotations')]
        if not part.is_dir() and not contents and any(
                folder.exists() for folder in folders):
            raise ValueError(f"'{out_dir}' holds data that was not made here: "
                             'give another folder, or move that data away')
        shutil.rmtree(part, ignore_errors=True)
        contents = write_splits(part, counts, parameters, workers)
        # Annotations go first and come last: without them nothing is taken
        # for complete.
        for folder in reversed(folders):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in folders:
            os.replace(part / folder.name, folder)
        part.rmdir()
    things = [thing for content in contents.values()
              for thing in content['annotations']]
    drawn = Counter(thing['category_id'] for thing in things)
    return dict(
        made=made, images=num_train + num_val, objects=len(things),
        per_class={name: drawn[i] for i, name in enumerate(CLASSES, 1)},
        seconds=time.time() - start)


def read_annotations(out_dir: Path) -> dict:
    """The content of each split's json that was written by this module."""
    contents = {}
    for split in SPLITS:
        try:
            content = json.loads(
                (out_dir / 'annotations' / f'{split}.json').read_bytes())
            if 'parameters' in content['info']:
                contents[split] = content
        except (OSError, ValueError, KeyError, TypeError):
            pass  # missing, damaged or another's: not ours
    return contents


def is_complete(out_dir: Path, contents: dict, parameters: dict) -> bool:
    """Whether both splits are there, made with these parameters."""
    return len(contents) == len(SPLITS) and all(
        content['info']['parameters'] == parameters
        and all((out_dir / split / image['file_name']).is_file()
                for image in content['images'])
        for split, content in contents.items())


def write_splits(folder: Path, counts: dict, parameters: dict,
                 workers: int) -> dict:
    """Write all images and jsons below ``folder``; returns the jsons."""
    for name in (*SPLITS, 'annotations'):
        (folder / name).mkdir(parents=True)
    tasks = [(split, index) for split in SPLITS
             for index in range(counts[split])]
    info = dict(description='Scenes drawn by univip_mm', parameters=parameters)
    categories = [dict(id=i, name=name, supercategory='object')
                  for i, name in enumerate(CLASSES, 1)]
    contents = {split: dict(info=info, licenses=[], images=[], annotations=[],
                            categories=categories) for split in SPLITS}
    width, height = parameters['size']
    work = partial(write_scene, folder, parameters['seed'], (width, height))
    number = 0
    drawn = dict(track(map_unordered(work, tasks, workers), len(tasks)))
    for image_id, (split, index) in enumerate(tasks, 1):
        contents[split]['images'].append(dict(
            id=image_id, file_name=file_name(index), width=width,
            height=height))
        for thing in drawn[image_id - 1]:
            number += 1
            contents[split]['annotations'].append(
                dict(id=number, image_id=image_id, **thing))
    for split in SPLITS:
        path = folder / 'annotations' / f'{split}.json'
        path.write_text(json.dumps(contents[split]))
    return contents


def file_name(index: int) -> str:
    return f'{index + 1:06d}.jpg'


def write_scene(folder: Path, seed: int, size: tuple, task: tuple) -> list:
    """Write one image; returns its annotations, yet without ids."""
    split, index = task
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    image, objects = make_scene(rng, size)
    path = folder / split / file_name(index)
    quality = int(rng.integers(85, 96))
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality]):
        raise OSError(f"cannot write '{path}'")
    return [annotate(thing) for thing in objects]


def annotate(thing: dict) -> dict:
    """The COCO annotation of an object of :func:`make_scene`."""
    x1, y1, x2, y2 = thing['bbox'].tolist()
    # Contours run through the centres of pixels: on a mask three times as
    # large they come within a sixth of a pixel of the edges.
    large = np.kron(thing['mask'][y1:y2, x1:x2], np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_SIMPLE)
    contours = [cv2.approxPolyDP(c, 1, True)[:, 0] for c in contours]
    return dict(
        category_id=list(CLASSES).index(thing['name']) + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=int(thing['mask'].sum()),
        iscrowd=0,
        segmentation=[((c + 0.5) / 3 + (x1, y1)).round(2).ravel().tolist()
                      for c in contours if len(c) > 2])
