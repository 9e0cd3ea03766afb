"""Pictures of what a network has learnt, beside those of
:mod:`univip_mm.visualization`, whose helpers draw these too.

Functions on NumPy arrays; each writes a PNG.
"""
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import matplotlib.image
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .pictures import (
    INK,
    INSTANCE_COLOUR,
    SCENE_COLOURS,
    PathLike,
    _halo,
    _pixel_axes,
    _place_badges,
    _render,
)

# Of Okabe and Ito, without the black; the yellow a little darker, since
# points of it stand on white.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9',
           '#d0c000')
MARKERS = 'os^Dv'
GREY = '#808080'
SAME, OTHER = '#009e73', '#d55e00'
_MARGIN = 18
_MAP = colormaps['viridis']


class Pairing(NamedTuple):
    """An image of :func:`draw_transport`."""
    title: str
    scene: np.ndarray  # (h, w, 3) uint8, RGB
    boxes: np.ndarray  # (K, 4) xyxy in pixels of the scene
    instances: Sequence[np.ndarray]  # K of (s, s, 3) uint8, RGB
    similarity: np.ndarray  # (K, K)
    plan: np.ndarray  # (K, K)
    supply: np.ndarray  # (K,)
    demand: np.ndarray  # (K,)


class Neighbours(NamedTuple):
    """A row of :func:`draw_neighbours`: pictures (s, s, 3) uint8, RGB, and
    the names of what they show, or None."""
    query: np.ndarray
    query_name: Optional[str]
    found: Sequence[np.ndarray]
    names: Sequence[Optional[str]]
    cosines: Sequence[float]


def draw_points(points: np.ndarray, names: Sequence[Optional[str]],
                path: PathLike, title: str = '', subtitle: str = '') -> None:
    """Write points coloured by their names as a PNG of 1400 x 1000 pixels.

    Args:
        points (np.ndarray): (N, 2).
        names (Sequence): N; None is grey.
        path (str or Path): File to write. Its folder is made.
        title (str): Stands above. Defaults to ''.
        subtitle (str): Below the title. Defaults to ''.
    """
    figure = Figure(figsize=(14, 10), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes([0.03, 0.03, 0.75, 0.86])
    figure.text(0.03, 0.955, title, fontsize=19, weight='bold', color=INK,
                va='center')
    figure.text(0.03, 0.915, subtitle, fontsize=14, color=INK, va='center')
    known = [name for name in names if name is not None]
    order = sorted(set(known), key=lambda x: (-known.count(x), x))
    names = np.array(names, dtype=object)
    size = 70 if len(points) < 300 else 34
    for group in [None, *order]:
        chosen = names == group if group is not None else np.array(
            [name is None for name in names])
        if not chosen.any():
            continue
        index = 0 if group is None else order.index(group)
        axes.scatter(
            *points[chosen].T, s=size, linewidths=0.5, edgecolors='white',
            alpha=0.85,
            color=GREY if group is None else COLOURS[index % len(COLOURS)],
            marker=MARKERS[index // len(COLOURS) % len(MARKERS)],
            label=f'{_shorten(group or "no category", 20)} '
            f'({chosen.sum()})')
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.03)
    for spine in axes.spines.values():
        spine.set_color('#c0c0c0')
    axes.legend(loc='upper left', bbox_to_anchor=(1.01, 1.005), fontsize=13,
                frameon=False, handletextpad=0.3, markerscale=1.5,
                labelspacing=0.7, title='category (points)',
                title_fontproperties=dict(size=13, weight='bold'),
                alignment='left')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(path)


def draw_neighbours(rows: Sequence[Neighbours], path: PathLike,
                    title: str = '', side: int = 120) -> None:
    """Write a sheet as a PNG: a query in each row, then what is most similar
    to it, with the cosine and the name. Names of the query's own are framed
    green and solid, others orange and dashed, unnamed ones grey.

    Args:
        rows (Sequence[Neighbours]): Of at most k neighbours each.
        path (str or Path): File to write. Its folder is made.
        title (str): Stands above. Defaults to ''.
        side (int): Of a picture, pixels. Defaults to 120.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError(f"no queries to draw in '{path}': give at least one")
    top, pitch, line = 96, side + 14, side + 52
    columns = max(len(row.found) for row in rows)
    left = _MARGIN + pitch + 26
    width = max(left + columns * pitch + _MARGIN, 760)
    height = top + len(rows) * line + 8
    figure, axes = _pixel_axes(width, height)
    axes.text(_MARGIN, 26, title, fontsize=17, weight='bold', color=INK,
              va='center')
    axes.text(_MARGIN, 60, 'query', fontsize=14, weight='bold', color=INK,
              va='center')
    axes.text(left, 60, 'most similar of other images', fontsize=14,
              weight='bold', color=INK, va='center')
    named = [row for row in rows if row.query_name is not None]
    if named:
        _frame(axes, left + 262, 51, 24, 18, SAME)
        axes.text(left + 294, 60, 'same category', fontsize=13, color=INK,
                  va='center')
        _frame(axes, left + 412, 51, 24, 18, OTHER, dashed=True)
        axes.text(left + 444, 60, 'another', fontsize=13, color=INK,
                  va='center')
    axes.plot([left - 20] * 2, [top - 10, height - 14], color='#b0b0b0',
              linewidth=1.5)
    for number, row in enumerate(rows):
        y = top + number * line
        _show(axes, row.query, _MARGIN, y, side)
        _frame(axes, _MARGIN, y, side, side, INK)
        axes.text(_MARGIN, y + side + 16,
                  _shorten(row.query_name or '', side // 8), fontsize=13,
                  weight='bold', color=INK, va='center')
        for k, (picture, name, cosine) in enumerate(
                zip(row.found, row.names, row.cosines)):
            x = left + k * pitch
            is_same = name == row.query_name
            colour = SAME if is_same else OTHER
            if row.query_name is None or name is None:
                colour, is_same = GREY, True
            _show(axes, picture, x, y, side)
            _frame(axes, x, y, side, side, colour, dashed=not is_same)
            text = _shorten(name or '', (side - 38) // 8)
            axes.text(x, y + side + 16, f'{cosine:.2f}', fontsize=12,
                      color=INK, va='center')
            axes.text(x + 36, y + side + 16, text, fontsize=12,
                      color=colour, weight='bold', va='center')
    _write(_render(figure), path)


def draw_transport(pairings: Sequence[Pairing], path: PathLike,
                   title: str = '') -> None:
    """Write transport plans as a PNG, a row for each image.

    Left the image with its instances, numbered. In the middle the online
    instances beside the target ones: the width of a line is the mass that the
    plan moves along it, and the bars are the marginals, the plan's sums over
    rows and columns. Right the cosines, framed where the mass is the row's
    largest.

    Args:
        pairings (Sequence[Pairing]): The images.
        path (str or Path): File to write. Its folder is made.
        title (str): Stands above. Defaults to ''.

    Raises:
        ValueError: There is no image.
    """
    if not pairings:
        raise ValueError(f"no images to draw in '{path}': give at least one")
    top, number = 76, max(len(x.instances) for x in pairings)
    side, gap = 84, 16
    plan_height = number * (side + gap) - gap
    row_height = plan_height + 112
    photo, bar, reach = 400, 110, 300
    x_online = _MARGIN + photo + 40 + bar + 8
    x_target = x_online + side + reach
    x_matrix = x_target + side + 8 + bar + 80
    cell = plan_height // number
    width = x_matrix + number * cell + 90
    figure, axes = _pixel_axes(width, top + len(pairings) * row_height)
    axes.text(_MARGIN, 28, title, fontsize=18, weight='bold', color=INK,
              va='center')
    axes.text(
        _MARGIN, 56, 'Width and number of a line: mass that the plan moves, '
        'in percent (below 1 % no number). Bars: the marginals, in percent. '
        'Frame in the matrix: where most of a row goes.',
        fontsize=13, color=INK, va='center')
    for index, pairing in enumerate(pairings):
        y = top + index * row_height
        axes.plot([0, width], [y, y], color='#c8c8c8', linewidth=1)
        axes.text(_MARGIN, y + 24, pairing.title, fontsize=14,
                  weight='bold', color=INK, va='center')
        y += 76
        _draw_scene(axes, pairing.scene, pairing.boxes, _MARGIN, y, photo,
                    plan_height)
        for x, ha, text in (
                (x_online - 8, 'right', 'supply'),
                (x_online, 'left', 'online'),
                (x_target + side, 'right', 'target'),
                (x_target + side + 8, 'left', 'demand'),
                (x_matrix, 'left', 'cosine of online (row) and target')):
            axes.text(x, y - 14, text, fontsize=13, color=INK, ha=ha,
                      va='center')
        centres = [y + k * (side + gap) + side / 2
                   for k in range(len(pairing.instances))]
        _draw_plan(axes, pairing.plan, x_online + side + 6, x_target - 6,
                   centres)
        for k, (picture, middle) in enumerate(
                zip(pairing.instances, centres)):
            for x, mass, sign, colour in (
                    (x_online, pairing.supply[k], -1, SCENE_COLOURS[0]),
                    (x_target, pairing.demand[k], 1, SCENE_COLOURS[1])):
                _show(axes, picture, x, middle - side / 2, side)
                _frame(axes, x, middle - side / 2, side, side, colour)
                _badge(axes, x + 14, middle - side / 2 + 14, k)
                start = x - 8 if sign < 0 else x + side + 8
                length = sign * mass * (bar - 34)
                axes.add_patch(Rectangle((start, middle - 13), length, 26,
                                         facecolor=colour))
                axes.text(start + length + sign * 4, middle,
                          f'{100 * mass:.0f}', fontsize=12, color=INK,
                          ha='right' if sign < 0 else 'left', va='center')
        _draw_matrix(axes, pairing.similarity, pairing.plan, x_matrix, y,
                     cell)
    _write(_render(figure), path)


def draw_similarity(rows: Sequence[tuple], path: PathLike,
                    title: str = '') -> None:
    """Write maps of similarity as a PNG, a row for each scene: the scene with
    its instances, then for each instance the cosine of its feature with every
    place, from the row's lowest (dark) to its highest (bright).

    Args:
        rows (Sequence[tuple]): For each scene a name, the scene (h, w, 3)
            uint8, RGB, the boxes (K, 4) xyxy in its pixels, and the maps
            (K, h, w).
        path (str or Path): File to write. Its folder is made.
        title (str): Stands above. Defaults to ''.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError(f"no scenes to draw in '{path}': give at least one")
    side, gap, top = 270, 14, 84
    number = max(len(maps) for *_, maps in rows)
    # Of a landscape no more than it takes.
    heights = [side * min(1, scene.shape[0] / scene.shape[1])
               for _, scene, *_ in rows]
    x_bar = _MARGIN + (number + 1) * (side + gap) + 6
    width = x_bar + 90
    figure, axes = _pixel_axes(
        width, top + math.ceil(sum(heights)) + 84 * len(rows))
    axes.text(_MARGIN, 28, title, fontsize=18, weight='bold', color=INK,
              va='center')
    axes.text(
        _MARGIN, 58, "Cosine of an instance's feature with each place of the "
        "scene's feature map; the box is where the instance was cut out. "
        'Each row has a scale of its own.', fontsize=13, color=INK,
        va='center')
    for index, (name, scene, boxes, maps) in enumerate(rows):
        y = top + sum(heights[:index]) + 84 * index
        axes.plot([0, width], [y, y], color='#c8c8c8', linewidth=1)
        axes.text(_MARGIN, y + 22, name, fontsize=14, weight='bold',
                  color=INK, va='center')
        y += 66
        axes.text(_MARGIN, y - 14, 'scene', fontsize=13, color=INK,
                  va='center')
        _draw_scene(axes, scene, boxes, _MARGIN, y, side, side)
        scale = Normalize(maps.min(), max(maps.max(), maps.min() + 1e-6))
        grey = scene.mean(axis=2, keepdims=True) / 255
        for k, (box, values) in enumerate(zip(boxes, maps)):
            x = _MARGIN + (k + 1) * (side + gap)
            # The scene shines through in grey.
            heat = _MAP(scale(values))[..., :3]
            blend = 0.62 * heat + 0.38 * grey
            blend = (255 * blend).round().astype(np.uint8)
            _draw_scene(axes, blend, [box], x, y, side, side, first=k)
            axes.text(x, y - 14, f'instance {k + 1}: {values.min():.2f} to '
                      f'{values.max():.2f}', fontsize=13, color=INK,
                      va='center')
        shown = heights[index]
        ramp = np.linspace(1, 0, 256)[:, None]
        _show(axes, (255 * _MAP(ramp)[..., :3]).astype(np.uint8), x_bar, y,
              22, shown)
        for value, at in ((scale.vmax, y + 8), (scale.vmin, y + shown - 8)):
            axes.text(x_bar + 28, at, f'{value:.2f}', fontsize=12, color=INK,
                      va='center')
    _write(_render(figure), path)


def line_widths(plan: np.ndarray, widest: float) -> np.ndarray:
    """Widths (K, K) of a plan's lines: proportional to the mass, so that the
    lines of two plans compare; all the mass of one instance of four has the
    widest."""
    return plan * len(plan) * widest


def _draw_plan(axes, plan: np.ndarray, x1: float, x2: float,
               centres: list) -> None:
    widths = line_widths(plan, 26)
    spots: list = []
    for m, n in zip(*np.unravel_index(np.argsort(plan, axis=None),
                                      plan.shape)):
        if widths[m, n] < 0.15:
            continue  # thinner than anything that is seen
        share = plan[m, n] / plan.max()
        axes.plot([x1, x2], [centres[m], centres[n]], color=INK,
                  linewidth=widths[m, n], alpha=0.25 + 0.35 * share,
                  solid_capstyle='butt')
    # The largest numbers choose their places first.
    for m, n in zip(*np.unravel_index(np.argsort(-plan, axis=None),
                                      plan.shape)):
        if plan[m, n] < 0.01:
            continue
        places = [(x1 + t * (x2 - x1),
                   centres[m] + t * (centres[n] - centres[m]))
                  for t in (0.22, 0.32, 0.42, 0.78, 0.68, 0.58, 0.12, 0.88)]
        clear = [min([math.hypot(x - a, 1.6 * (y - b)) for a, b in spots],
                     default=99) for x, y in places]
        best = int(np.argmax(np.minimum(clear, 36)))
        spots.append(places[best])
        axes.text(*places[best], f'{100 * plan[m, n]:.0f}', fontsize=11,
                  color=INK, ha='center', va='center',
                  bbox=dict(boxstyle='round,pad=0.15', facecolor='white',
                            edgecolor='#909090', linewidth=0.6))


def _draw_matrix(axes, similarity: np.ndarray, plan: np.ndarray, left: float,
                 top: float, cell: float) -> None:
    scale = Normalize(similarity.min(),
                      max(similarity.max(), similarity.min() + 1e-6))
    number = len(similarity)
    for m in range(number):
        axes.text(left - 12, top + (m + 0.5) * cell, str(m + 1), fontsize=13,
                  color=SCENE_COLOURS[0], weight='bold', ha='center',
                  va='center')
        axes.text(left + (m + 0.5) * cell, top + number * cell + 14,
                  str(m + 1), fontsize=13, color=SCENE_COLOURS[1],
                  weight='bold', ha='center', va='center')
        for n in range(number):
            value = similarity[m, n]
            colour = _MAP(scale(value))
            axes.add_patch(Rectangle((left + n * cell, top + m * cell), cell,
                                     cell, facecolor=colour, linewidth=0))
            axes.text(left + (n + 0.5) * cell, top + (m + 0.5) * cell,
                      f'{value:.2f}', fontsize=14, ha='center', va='center',
                      color='black' if scale(value) > 0.6 else 'white')
        n = int(plan[m].argmax())
        _frame(axes, left + n * cell + 4, top + m * cell + 4, cell - 8,
               cell - 8, SCENE_COLOURS[1])


def _draw_scene(axes, scene: np.ndarray, boxes: np.ndarray, left: float,
                top: float, width: float, height: float,
                first: int = 0) -> None:
    """The scene, as large as fits, with its boxes, numbered from
    ``first``."""
    scale = min(width / scene.shape[1], height / scene.shape[0])
    shown = axes.imshow(
        scene, extent=(left, left + scene.shape[1] * scale,
                       top + scene.shape[0] * scale, top), aspect='auto')
    shown.set_interpolation('antialiased')
    for box in np.asarray(boxes) * scale + [left, top] * 2:
        axes.add_patch(
            Rectangle(box[:2], *(box[2:] - box[:2]), facecolor='none',
                      edgecolor=INSTANCE_COLOUR, linewidth=2.2,
                      path_effects=_halo(4, 0.75)))
    places = _place_badges(np.asarray(boxes) * scale + [left, top] * 2)
    for k, (x, y) in enumerate(places, first):
        _badge(axes, x, y, k)


def _badge(axes, x: float, y: float, k: int) -> None:
    axes.text(x, y, str(k + 1), fontsize=12, weight='bold', color='black',
              ha='center', va='center',
              bbox=dict(boxstyle='circle,pad=0.18', linewidth=1,
                        facecolor=INSTANCE_COLOUR, edgecolor='black'))


def _show(axes, picture: np.ndarray, left: float, top: float, width: float,
          height: Optional[float] = None) -> None:
    axes.imshow(
        picture, aspect='auto', interpolation='antialiased',
        extent=(left, left + width, top + (height or width), top))


def _frame(axes, left: float, top: float, width: float, height: float,
           colour: str, dashed: bool = False) -> None:
    axes.add_patch(
        Rectangle((left, top), width, height, facecolor='none',
                  edgecolor=colour, linewidth=3.5,
                  linestyle=(0, (3, 1.2)) if dashed else '-'))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length - 1] + '…'


def _write(picture: np.ndarray, path: PathLike) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(path, picture, format='png')
