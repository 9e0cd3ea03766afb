"""The twelve classes of objects, one ``draw_*`` function each.

A class is drawn in the sketch's unit frame, with two contrasting colors.
"""
import numpy as np

from .sketch import Sketch, Sprite, ellipse, round_corners
from .textures import INK, PALE, WHITE, contrasting_colors, random_color

# Objects are drawn at twice their size and reduced, which removes the jagged
# edges. Above LARGE pixels the factor is smaller, to save time.
SUPERSAMPLING, LARGE = 2, 200


def draw_object(name: str, rng, side: float, light: np.ndarray) -> Sprite:
    """Draw an object in a random pose; ``side`` is its frame's, in pixels."""
    scale = min(SUPERSAMPLING, max(LARGE / side, 1))
    sketch = Sketch(rng, side * scale, light)
    CLASSES[name](sketch, rng, *contrasting_colors(rng))
    return sketch.to_sprite(rng, scale)


def draw_ball(s: Sketch, rng, main, accent) -> None:
    """Draw a ball with segments and two poles, rotated in 3-D."""
    body = s.shade_cushion(s.fill(ellipse(0, 0, .86, .86), main), .95, .45)
    x, y = s.x / 0.86, s.y / 0.86
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    spin = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in spin)
    s.paint(body, np.sin(rng.integers(3, 5) * np.arctan2(v, u)) > 0, accent)
    s.paint(body, np.abs(w) > 0.95, WHITE)


def draw_mug(s: Sketch, rng, main, accent) -> None:
    """Draw a mug with a handle, a drink and one or two bands."""
    wide, top, bottom = rng.uniform(0.58, 0.68), -0.62, 0.68
    s.stroke(ellipse(wide - 0.02, 0.02, 0.34, 0.42, -88, 88), main, 0.17)
    s.shade_cushion(s.alpha, 0.8, gloss=0.2)
    body, across = s.revolve([top, bottom], [wide, wide * 0.9], main, 0.35)
    height = s.y - 0.13 * np.sqrt(1 - across * across)
    for place in rng.permutation([-0.3, 0.05, 0.4])[:rng.integers(1, 3)]:
        s.paint(body, np.abs(height - place) < 0.09, accent)
    s.shade_plane(s.fill(ellipse(0, top, wide, .19), main), (0, -.5, .86))
    hollow = s.fill(ellipse(0, top + 0.02, wide - 0.09, 0.13), main)
    s.shading[hollow > 0] = 0.38
    drink = s.fill(ellipse(0, top + 0.07, wide - 0.16, 0.08), (30, 45, 70))
    s.shading[drink > 0] = 0.8


def draw_book(s: Sketch, rng, main, accent) -> None:
    """Draw a closed book: spine, pages, and a cover with a title."""
    corner, across = np.array([-0.92, -0.72]), np.array([1.3, -0.14])
    down, thick = np.array([0.36, 1.1]), np.array([0, rng.uniform(.24, .36)])

    def at(a, b, c=0.0):
        return corner + a * across + b * down + c * thick

    spine = s.fill([at(0, 0), at(0, 1), at(0, 1, 1), at(0, 0, 1)], main)
    for b in (0.15, 0.25, 0.75, 0.85):
        s.stroke([at(0, b), at(0, b, 1)], accent, 0.04)
    s.shade_plane(spine, (-0.8, 0.3, 0.5))
    pages = s.fill([at(0, 1), at(1, 1), at(1, 1, 1), at(0, 1, 1)], PALE)
    for c in np.linspace(0.2, 0.8, 4):
        s.stroke([at(0, 1, c), at(1, 1, c)], (110, 135, 150), 0.015)
    s.stroke([at(0, 1, 0.97), at(1, 1, 0.97)], main, 0.05)
    s.shade_plane(pages, (0, 0.75, 0.66))
    cover = s.fill([at(0, 0), at(1, 0), at(1, 1), at(0, 1)], main)
    frame = [at(.1, .08), at(.92, .08), at(.92, .92), at(.1, .92)]
    s.stroke(frame, accent, 0.03, closed=True)
    s.fill([at(.22, .2), at(.8, .2), at(.8, .36), at(.22, .36)], accent)
    for b in (0.5, 0.6, 0.7, 0.8)[:rng.integers(2, 5)]:
        s.stroke([at(0.24, b), at(rng.uniform(.5, .78), b)], accent, 0.04)
    s.shade_plane(cover, (0, -0.3, 0.95))


def draw_star(s: Sketch, rng, main, accent) -> None:
    """Draw a rounded star with a seam and a face."""
    corners = ellipse(0, 0.05, 1, 1, -90, 270, 11)[:-1]
    corners[1::2] *= rng.uniform(0.42, 0.5)
    outline = round_corners(np.repeat(corners * 1.04, 2, axis=0))
    s.shade_cushion(s.fill(outline, main), 0.8)
    for piece in np.array_split(outline * 0.78, 32)[::2]:
        s.stroke(piece, accent, 0.035)
    for side in (-0.17, 0.17):
        s.fill(ellipse(side, -0.1, 0.08, 0.1), INK)
        s.fill(ellipse(side - 0.02, -0.13, 0.03, 0.03), WHITE)
    s.stroke(ellipse(0, 0.1, 0.14, 0.1, 10, 170), INK, 0.045)


def draw_leaf(s: Sketch, rng, main, accent) -> None:
    """Draw a serrated leaf with veins and a stalk."""
    teeth, wide = rng.integers(9, 14), rng.uniform(0.46, 0.6)
    t = np.linspace(0, 1, teeth * 6)
    saw = 1 + 0.13 * ((t * teeth) % 1 - 0.5)
    half = wide * np.sin(np.pi * t**0.8)**0.9 * saw
    edge = np.column_stack([half, 1.75 * t - 0.75])[::-1]
    s.stroke([(0, 0.9), (0.04, 1.0), (0.1, 1.12)], accent, 0.09)
    outline = np.concatenate([edge * (1, -1), edge[::-1] * (-1, -1)])
    body = s.shade_cushion(s.fill(outline + (0, 0.12), main), 0.35)
    s.paint(body, s.x < 0, INK, 0.18)
    s.paint(body, s.x > 0, WHITE, 0.1)
    for y in np.linspace(-0.5, 0.65, 7):
        reach = np.interp(0.12 - y + 0.2, edge[::-1, 1], edge[::-1, 0])
        for side in (-1, 1):
            s.stroke([(0, y), (side * reach * 0.5, y - 0.14),
                      (side * reach * 0.86, y - 0.27)], accent, 0.03)
    s.stroke([(0, -0.8), (0, 0.95)], accent, 0.06)


def draw_fish(s: Sketch, rng, main, accent) -> None:
    """Draw a fish with fins, scales, a gill and an eye."""
    high = rng.uniform(0.42, 0.54)
    fins = [[(-.35, -.25), (-.1, -high - .32), (.4, -high - .2), (.45, -.2)],
            [(-.2, .25), (.1, high + .28), (.35, high + .1), (.3, .2)],
            [(.5, 0), (.75, -.1), (1.08, -.52), (.95, 0), (1.08, .52),
             (.75, .1)]]
    for fin in fins:
        part = s.shade_cushion(s.fill(round_corners(fin, 2), accent), 0.4)
        s.paint(part, np.sin(s.x * 42 + s.y * 16) > 0.3, INK, 0.35)
    outline = [(-1, .05), (-.75, -.3), (-.3, -high), (.15, -high), (.85, -.13),
               (.85, .13), (.15, high), (-.3, high), (-.75, .32)]
    body = s.shade_cushion(s.fill(round_corners(outline), main), 0.75, 0.2)
    # Scales: circular arcs on a grid; every second row is shifted.
    row = np.floor(s.y / 0.14)
    u = (s.x / 0.17 + 0.5 * (row % 2)) % 1 - 1
    v = s.y / 0.14 - row - 0.5
    radius = u * u + 1.1 * v * v
    scales = (radius > 0.45) & (radius < 0.95) & (s.x > -0.45)
    s.paint(body, scales, accent, 0.75)
    s.stroke(ellipse(-.68, 0.02, 0.24, 0.34, -65, 65), INK, 0.045)
    s.fill(ellipse(-0.7, -0.1, 0.12, 0.12), WHITE)
    s.fill(ellipse(-0.72, -0.1, 0.065, 0.065), INK)
    s.stroke([(-0.97, 0.12), (-0.78, 0.16)], INK, 0.04)


def draw_bottle(s: Sketch, rng, main, accent) -> None:
    """Draw a bottle with a label and a ridged cap."""
    wide, neck, shoulder = (rng.uniform(0.4, 0.52), rng.uniform(0.15, 0.2),
                            rng.uniform(-0.3, -0.1))
    body, across = s.revolve(
        [-0.95, -0.55, shoulder - 0.12, shoulder, 0.92],
        [neck, neck, wide * 0.86, wide, wide], main, gloss=0.7)
    curve = s.y - 0.1 * np.sqrt(1 - across * across)
    label = (curve > shoulder + 0.2) & (curve < 0.68)
    s.paint(body, label, accent)
    for place in (0.28, 0.4, 0.5):
        line = (np.abs(curve - place) < 0.025) & (np.abs(across) < 0.6)
        s.paint(body, label & line, main)
    emblem = (across / 0.4)**2 + ((curve - 0.12) / .1)**2 < 1
    s.paint(body, label & emblem, main)
    ring = (curve < shoulder - 0.2) & (curve > shoulder - 0.3)
    s.paint(body, ring, INK, 0.25)
    _, across = s.revolve([-1.1, -0.84], [neck + 0.05] * 2, accent, 0.2, 0.05)
    s.shading[(np.sin(across * 16) > 0.5) & (s.y < -0.8)] *= 0.8


def draw_cube(s: Sketch, rng, main, accent) -> None:
    """Draw a cube with a checkered pattern on its three visible faces."""
    cells, lean = rng.integers(3, 5), rng.uniform(0.34, 0.48)
    left, right = np.array([-0.8, -lean]), np.array([0.8, -lean])
    up, low = np.array([0, -0.92]), np.array([0, 0.88])
    faces = [(low, left, up, (-0.7, 0.4, 0.6)),
             (low, right, up, (0.7, 0.4, 0.6)),
             (low + up, left, right, (0, -0.75, 0.66))]
    for corner, a, b, normal in faces:
        face = s.fill([corner, corner + a, corner + a + b, corner + b], main)
        s.shade_plane(face, normal)
        for i in range(cells):
            for j in range(i % 2, cells, 2):
                cell = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
                s.fill(corner + np.array(cell) / cells @ [a, b], accent)


def draw_flower(s: Sketch, rng, main, accent) -> None:
    """Draw a flower with five to eight petals and a disk of seeds."""
    petals = rng.integers(5, 9)
    wide = min(0.36, 1.75 / petals)
    petal = round_corners([(.1, 0), (.45, -wide), (.9, -wide), (1.02, -.1),
                           (1.02, .1), (.9, wide), (.45, wide)], 2)
    for angle in np.linspace(0, 2 * np.pi, petals, endpoint=False):
        rotation = np.array([[np.cos(angle), np.sin(angle)],
                             [-np.sin(angle), np.cos(angle)]])
        s.shade_cushion(s.fill(petal @ rotation, main), 0.7)
        for bend in (-0.35, 0, 0.35):
            vein = [(0.3, bend * 0.15), (0.75, bend * wide)] @ rotation
            s.stroke(vein, accent, 0.03)
    s.shade_cushion(s.fill(ellipse(0, 0, 0.3, 0.3), accent), 0.7)
    for k in range(26):  # seeds, in a sunflower's spiral
        r, a = 0.27 * np.sqrt((k + 0.5) / 26), k * 2.39996
        s.fill(ellipse(r * np.cos(a), r * np.sin(a), 0.03, 0.03, steps=8), INK)


def draw_mushroom(s: Sketch, rng, main, accent) -> None:
    """Draw a mushroom with a stem, a ring, gills and a spotted cap."""
    pale, thin = random_color(rng, 0.6), rng.uniform(0.2, 0.27)
    radii = thin * np.array([1, 1, 1.3, 1.4])
    s.revolve([-0.1, 0.35, 0.75, 0.92], radii, pale, 0.1)
    ring = [(-.34, .42), (-.24, .2), (.24, .2), (.34, .42), (0, .5)]
    s.shade_cushion(s.fill(round_corners(ring, 2), pale), 0.6)
    gills = s.fill(ellipse(0, 0.02, 0.86, 0.17), pale)
    s.paint(gills, np.sin(np.arctan2(s.x, s.y + 0.5) * 40) > 0, INK, 0.4)
    s.shading[gills > 0] = 0.65
    tall = rng.uniform(0.82, 1.0)
    cap = s.fill(np.concatenate([ellipse(0, 0.0, 0.95, tall, 180, 360),
                                 ellipse(0, 0.0, 0.95, 0.1, 0, 180)]), main)
    spots = np.zeros_like(s.x, dtype=bool)
    for x, y in [(-.62, -.2), (-.3, -.52), (-.12, -.12), (.2, -.66),
                 (.36, -.3), (.72, -.16), (-.02, -.82)]:
        x, y = np.add((x, y), rng.uniform(-0.06, 0.06, 2))
        r = rng.uniform(0.09, 0.15)
        spots |= ((s.x - x) / r)**2 + ((s.y - y * tall) / r / 0.8)**2 < 1
    s.paint(s.shade_cushion(cap, 0.75, gloss=0.2), spots, accent)


def draw_butterfly(s: Sketch, rng, main, accent) -> None:
    """Draw a butterfly with spotted wings and feelers."""
    spot = random_color(rng)
    upper = round_corners([(.05, -.1), (.3, -.75), (.85, -.98), (1.08, -.7),
                           (.92, -.2), (.5, .08)])
    lower = round_corners([(.05, .05), (.5, .0), (.88, .2), (.85, .6),
                           (.5, .92), (.3, .6)])
    for side in (-1, 1):
        for wing, center in ((lower, (.52, .4)), (upper, (.66, -.52))):
            flip = np.array([side, 1])
            s.shade_cushion(s.fill(wing * flip, accent), 0.3)
            inner = (wing - center) * 0.8 + center
            s.fill(inner * flip, main)
            for tip in inner[4:-8:6]:
                s.stroke([(0.08 * side, 0), tip * flip], accent, 0.025)
            for r, color in ((.2, accent), (.14, spot), (.06, WHITE)):
                s.fill(ellipse(center[0] * side, center[1], r, r), color)
    for side in (-1, 1):
        s.stroke([(0, -.4), (.1 * side, -.75), (.26 * side, -.95)], INK, 0.04)
        s.fill(ellipse(.27 * side, -.96, .05, .05), INK)
    body = s.fill(ellipse(0, 0.02, 0.1, 0.55), (50, 60, 75))
    s.paint(s.shade_cushion(body, 0.8), np.sin(s.y * 40) > 0.4, INK)


def draw_clock(s: Sketch, rng, main, accent) -> None:
    """Draw an alarm clock with two bells and a random time."""
    for side in (-1, 1):
        s.stroke([(0.4 * side, 0.5), (0.62 * side, 0.98)], main, 0.16)
        tilt = np.array([[1, .25 * side], [-.25 * side, 1]])
        bell = ellipse(.5 * side, -.66, .34, .3) @ tilt + (-.17 * side, 0)
        s.shade_cushion(s.fill(bell, accent), 0.9, gloss=0.5)
    s.stroke([(0, -0.7), (0, -1.0)], main, 0.1)
    s.shade_cushion(s.fill(ellipse(0, .1, .78, .78), main), 0.9, gloss=0.3)
    s.shade_plane(s.fill(ellipse(0, .1, .62, .62), accent), (0, 0, 1))
    for hour in range(12):
        a = hour * np.pi / 6
        tick = np.outer([.5 if hour % 3 else .44, .56], [np.sin(a), np.cos(a)])
        s.stroke(tick + (0, .1), main, 0.05)
    for r, width in ((0.44, 0.06), (0.3, 0.09)):
        a = rng.uniform(0, 2 * np.pi)
        s.stroke([(0, .1), (r * np.cos(a), .1 + r * np.sin(a))], main, width)
    s.fill(ellipse(0, 0.1, 0.07, 0.07), INK)


CLASSES = dict(
    ball=draw_ball, mug=draw_mug, book=draw_book, star=draw_star,
    leaf=draw_leaf, fish=draw_fish, bottle=draw_bottle, cube=draw_cube,
    flower=draw_flower, mushroom=draw_mushroom, butterfly=draw_butterfly,
    clock=draw_clock)
