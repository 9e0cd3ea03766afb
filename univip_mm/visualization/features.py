"""Pictures of features: points, nearest neighbours, similarity maps."""
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, product
from typing import NamedTuple, Optional

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from matplotlib.patches import Patch

from ..io.atomic import PathLike
from . import style

# Okabe and Ito's colors without black. Their yellow is darker here: points
# are drawn on white.
_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PINK, '#e69f00',
           '#56b4e9', '#d0c000')
_MARKERS = 'os^Dv'


class NeighbourRow(NamedTuple):
    """Row of :func:`draw_neighbours`: images (s, s, 3) uint8, RGB."""
    query: np.ndarray
    query_name: Optional[str]
    found: Sequence[np.ndarray]
    names: Sequence[Optional[str]]
    cosines: Sequence[float]


class SimilarityRow(NamedTuple):
    """Row of :func:`draw_similarity`."""
    title: str
    scene: np.ndarray  # (h, w, 3) uint8, RGB
    boxes: np.ndarray  # (K, 4) xyxy in pixels of the scene
    maps: np.ndarray  # (K, h, w)


def draw_points(points: np.ndarray, names: Sequence[Optional[str]],
                path: PathLike, title: str = '', subtitle: str = '') -> None:
    """Write points (N, 2) as a PNG of 1400 x 1000 pixels.

    Each of the N names has its own color and marker; None is gray.
    """
    figure, body = style.titled_figure(1400, 1000, title, subtitle, dpi=100)
    axes = body.subplots()
    counts = Counter(names)
    groups = sorted((name for name in counts if name is not None),
                    key=lambda name: (-counts[name], name))
    styles = [(name, color, marker) for name, (marker, color) in zip(
        groups, cycle(product(_MARKERS, _COLORS)))]
    if None in counts:
        styles.insert(0, (None, style.GRAY, 'o'))
    for name, color, marker in styles:
        chosen = np.array([other == name for other in names])
        label = style.plain(name or 'no category', 20)
        axes.scatter(*points[chosen].T, s=70 if len(points) < 300 else 34,
                     linewidths=0.5, edgecolors='white', alpha=0.85,
                     color=color, marker=marker,
                     label=f'{label} ({counts[name]})')
    axes.set(xticks=[], yticks=[])
    axes.margins(0.03)
    axes.spines[:].set_color('#c0c0c0')
    body.legend(loc='outside right upper', fontsize=13, frameon=False,
                handletextpad=0.3, markerscale=1.5, labelspacing=0.7,
                title='category (points)', alignment='left',
                title_fontproperties=dict(size=13, weight='bold'))
    style.save_figure(figure, path)


def draw_neighbours(rows: Sequence[NeighbourRow], path: PathLike,
                    title: str = '') -> None:
    """Write queries and their nearest neighbours as a PNG, a row per query.

    Below each neighbour are the cosine and the name. Neighbours with the
    query's name have a solid green frame, others a dashed orange one, and
    neighbours without a name a gray one.
    """
    style.check_rows(rows, 'queries', path)
    side, columns = 120, max(4, *(len(row.found) for row in rows))
    height = 104 + len(rows) * (side + 52)
    figure, body = style.titled_figure(
        max((columns + 1) * (side + 14) + 62, 760), height, title)
    grid = body.subplots(len(rows), 2 + columns, squeeze=False,
                         width_ratios=[side, 20] + [side] * columns)
    for axes in grid.flat:
        axes.axis('off')
    for row, (query, line, *places) in zip(rows, grid):
        _draw_neighbour(query, row.query, style.INK, row.query_name or '')
        line.axvline(0.5, -0.2, 1, color='#b0b0b0', clip_on=False)
        for axes, image, name, cosine in zip(places, row.found, row.names,
                                             row.cosines):
            color = style.GREEN if name == row.query_name else style.ORANGE
            if row.query_name is None or name is None:
                color = style.GRAY
            _draw_neighbour(axes, image, color, f'{cosine:.2f}  {name or ""}')
    heading = dict(loc='left', fontsize=14, weight='bold', pad=9,
                   color=style.INK)
    grid[0, 0].set_title('query', **heading)
    grid[0, 2].set_title('most similar in other images', **heading)
    if any(row.query_name is not None for row in rows):
        frame = dict(facecolor='none', linewidth=3.5)
        same = Patch(edgecolor=style.GREEN, label='same category', **frame)
        other = Patch(edgecolor=style.ORANGE, label='other category',
                      linestyle=(0, (3, 1.2)), **frame)
        figure.legend(handles=[same, other], loc='center left', ncols=2,
                      bbox_to_anchor=(0.008, 1 - 56 / height), fontsize=13,
                      frameon=False)
    style.save_figure(figure, path)


def _draw_neighbour(axes: Axes, image: np.ndarray, color: str,
                    text: str) -> None:
    axes.axis('on')
    style.show_image(axes, image, color, dashed=color == style.ORANGE)
    axes.set_xlabel(style.plain(text, 16), loc='left', fontsize=12,
                    color=color, weight='bold')


def draw_similarity(rows: Sequence[SimilarityRow], path: PathLike,
                    title: str = '') -> None:
    """Write similarity maps as a PNG, a row per scene.

    Each row has the scene with its instances, then a map for each instance:
    the cosine of its feature with each position of the scene's feature map,
    from the lowest (dark) to the highest (bright) of the row.
    """
    style.check_rows(rows, 'scenes', path)
    side = 284
    heights = [84 + side * min(1, row.scene.shape[0] / row.scene.shape[1])
               for row in rows]
    columns = 1 + max(len(row.maps) for row in rows)
    figure, body = style.titled_figure(
        columns * side + 114, round(72 + sum(heights)), title,
        "Cosine of an instance's feature with each position of the scene's "
        'feature map. The box is the instance. Each row has its own scale.')
    for part, row in zip(style.split_rows(body, rows, heights), rows):
        _draw_maps(part, row, columns, side)
    style.save_figure(figure, path)


def _draw_maps(part: SubFigure, row: SimilarityRow, columns: int,
               side: int) -> None:
    low = row.maps.min()
    norm = Normalize(low, max(row.maps.max(), low + 1e-6))
    gray = row.scene.mean(axis=2, keepdims=True) / 255
    scale = side / max(row.scene.shape[:2])
    grid = part.subplots(1, columns)
    for axes in grid:
        axes.axis('off')
    style.show_image(grid[0], row.scene)
    style.draw_instances(grid[0], row.boxes, scale)
    style.caption(grid[0], 'scene')
    for k, (axes, box, values) in enumerate(
            zip(grid[1:], row.boxes, row.maps), 1):
        # The scene stays visible in gray.
        heat = colormaps[style.COLORMAP](norm(values))[..., :3]
        blend = (255 * (0.62 * heat + 0.38 * gray)).round().astype(np.uint8)
        style.show_image(axes, blend)
        style.draw_instances(axes, [box], scale, first=k)
        style.caption(
            axes, f'instance {k}: {values.min():.2f} to {values.max():.2f}')
    bar = part.colorbar(ScalarMappable(norm, style.COLORMAP),
                        cax=grid[-1].inset_axes([1.05, 0, 0.08, 1]),
                        ticks=[norm.vmin, norm.vmax], format='%.2f')
    bar.ax.tick_params(labelsize=12)
    bar.outline.set_visible(False)
