"""Common look of the pictures: colors, boxes, figures, files.

All pictures are drawn with Matplotlib's objects and the Agg canvas, never with
pyplot: drawing needs no display and leaves no global state.
"""
import os
from collections.abc import Sequence
from typing import Optional

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..io.atomic import PathLike, atomic_write
from ..utils.text import printable

# Okabe and Ito's colors, which stay distinct for every kind of color vision.
BLUE, ORANGE, GREEN, PINK = '#0072b2', '#d55e00', '#009e73', '#cc79a7'
INK, GRAY = '#202020', '#808080'
SCENE_COLORS = (BLUE, ORANGE)
OVERLAP_COLOR = '#00b386'
INSTANCE_COLOR = '#ffd500'
PROPOSAL_COLOR = '#d0d0d0'
COLORMAP = 'viridis'

# At this resolution a point equals a pixel.
PIXEL_DPI = 72
PHOTO_SIZE = 620
TITLE_HEIGHT = 34


def new_figure(width: int, height: int, dpi: int = PIXEL_DPI,
               **kwargs) -> Figure:
    """Create a figure of the given size in pixels."""
    return Figure(figsize=(width / dpi, height / dpi), dpi=dpi, **kwargs)


def titled_figure(width: int, height: int, title: str, subtitle: str = '',
                  dpi: int = PIXEL_DPI) -> tuple[Figure, SubFigure]:
    """Return a figure with a header of one inch, and the part below."""
    figure = new_figure(width, height, dpi, layout='constrained')
    margin = 0.25 * dpi / width
    figure.get_layout_engine().set(rect=(margin, 0, 1 - 2 * margin, 1),
                                   w_pad=0.1, h_pad=0.12)
    header, body = figure.subfigures(2, 1, height_ratios=[dpi, height - dpi])
    header.text(0, 0.64, plain(title), fontsize=18, weight='bold', color=INK,
                va='center')
    header.text(0, 0.22, plain(subtitle), fontsize=13, color=INK, va='center')
    return figure, body


def split_rows(body: SubFigure, rows: Sequence,
               heights: Optional[list] = None) -> list[SubFigure]:
    """Split a figure into one part per row, with its title below a line."""
    parts = body.subfigures(len(rows), 1, height_ratios=heights,
                            squeeze=False)[:, 0]
    for part, row in zip(parts, rows):
        part.add_artist(Line2D([0, 1], [1, 1], color='#c8c8c8', linewidth=2))
        part.suptitle(plain(row.title), x=0, ha='left', fontsize=14,
                      weight='bold', color=INK)
    return parts


def caption(axes: Axes, text: str) -> None:
    """Write a caption above axes, at the left."""
    axes.set_title(text, loc='left', fontsize=13, color=INK)


def pixel_axes(figure: Figure) -> Axes:
    """Add invisible axes over the whole figure, in pixels, y downwards."""
    axes = figure.add_axes([0, 0, 1, 1])
    axes.axis('off')
    axes.set(xlim=(0, figure.bbox.width), ylim=(figure.bbox.height, 0),
             autoscale_on=False)
    return axes


def photo_axes(figure: Figure, image: np.ndarray, left: int, top: int,
               max_width: int, max_height: int) -> tuple[Axes, float]:
    """Add axes that show an image (H, W, 3) as large as fits.

    The edges and the available size are in pixels of the figure. Returns the
    axes, in pixels of the image, and the figure pixels per image pixel.
    """
    height, width = image.shape[:2]
    scale = min(max_width / width, max_height / height)
    shown_width, shown_height = round(width * scale), round(height * scale)
    bottom = figure.bbox.height - top - shown_height
    axes = figure.add_axes(np.array([left, bottom, shown_width, shown_height])
                           / np.tile(figure.bbox.size, 2))
    axes.axis('off')
    axes.imshow(image, extent=(0, width, height, 0), aspect='auto')
    axes.autoscale(False)
    return axes, scale


def show_image(axes: Axes, image: np.ndarray, color: Optional[str] = None,
               dashed: bool = False) -> None:
    """Show an image in axes, with a frame if a color is given."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), clip_on=False)
    axes.autoscale(False)
    axes.set(xticks=[], yticks=[])
    if color is None:
        axes.spines[:].set_visible(False)
    else:
        axes.spines[:].set(color=color, linewidth=3.5, capstyle='butt',
                           linestyle=(0, (3, 1.2)) if dashed else '-')


def halo(width: float, alpha: float) -> list:
    """Return the path effects of a dark outline, for lines on photographs."""
    return [withStroke(linewidth=width, foreground='black', alpha=alpha)]


def draw_box(axes: Axes, box: np.ndarray, color: str, linewidth: float,
             facecolor: str = 'none', **kwargs) -> None:
    """Draw a box, xyxy in the coordinates of the axes."""
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64)
    axes.add_patch(Rectangle(
        (x1, y1), x2 - x1, y2 - y1, edgecolor=color, linewidth=linewidth,
        facecolor=facecolor, clip_on=False, **kwargs))


def draw_proposal(axes: Axes, box: np.ndarray) -> None:
    """Draw a proposal that is not an instance, thin and gray."""
    draw_box(axes, box, PROPOSAL_COLOR, 0.8, alpha=0.75,
             path_effects=halo(1.6, 0.25))


def draw_number(axes: Axes, x: float, y: float, number: int,
                fontsize: int = 12) -> None:
    """Draw a number in a yellow circle."""
    axes.text(x, y, str(number), fontsize=fontsize, weight='bold',
              color='black', ha='center', va='center',
              bbox=dict(boxstyle='circle,pad=0.2', facecolor=INSTANCE_COLOR,
                        edgecolor='black', linewidth=1))


def draw_instances(axes: Axes, boxes: np.ndarray, scale: float,
                   first: int = 1, fontsize: int = 12,
                   num_solid: Optional[int] = None) -> None:
    """Draw instances (K, 4) xyxy, bold, yellow, and numbered from ``first``.

    Each number goes to the first free corner of its box, else to the middle
    of a side or to the center, else to the freest of these places. ``scale``
    is in figure pixels per unit of the coordinates. Boxes after the first
    ``num_solid`` are dashed.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    for k, box in enumerate(boxes):
        is_solid = num_solid is None or k < num_solid
        draw_box(axes, box, INSTANCE_COLOR, 2.2, path_effects=halo(4, 0.75),
                 linestyle='-' if is_solid else (0, (4, 2.2)))
    order = [0, 2, 6, 8, 1, 3, 5, 7, 4]  # of the 3 x 3 places in a box
    used: list = []
    for x1, y1, x2, y2 in boxes * scale + [13, 13, -13, -13]:
        places = np.array([(x, y) for y in (y1, (y1 + y2) / 2, y2)
                           for x in (x1, (x1 + x2) / 2, x2)])[order]
        # Numbers more than 26 pixels apart do not touch.
        distances = np.min([np.full(len(order), 26)] +
                           [np.hypot(*(places - place).T) for place in used],
                           axis=0)
        used.append(places[distances.argmax()])
        draw_number(axes, *used[-1] / scale, first + len(used) - 1, fontsize)


def finish_axes(axes: Axes, title: str, xlabel: str = '') -> None:
    """Give axes of a diagram the common look."""
    axes.set_title(title, fontsize=15, color=INK)
    axes.set_xlabel(xlabel, fontsize=12)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=12)
    axes.spines[['top', 'right']].set_visible(False)


def plain(text: str, length: int = 1000) -> str:
    """Return a name for Matplotlib: printable, without math, truncated."""
    text = printable(text)
    if len(text) > length:
        text = text[:length - 1] + '…'
    return text.replace('$', r'\$')


def check_image(image: np.ndarray, name: str) -> None:
    """Raise ValueError if an image is not (height, width, 3) uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'{name} is {image.dtype} of shape {image.shape}: '
                         'give (height, width, 3) uint8, RGB')


def check_rows(rows: Sequence, what: str, path: PathLike) -> None:
    """Raise ValueError if there is nothing to draw."""
    if len(rows) == 0:
        raise ValueError(f"no {what} to draw in '{path}': give at least one")


def pad_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Add white below and to the right of an image."""
    return np.pad(image, ((0, height - image.shape[0]),
                          (0, width - image.shape[1]), (0, 0)),
                  constant_values=255)


def render(figure: Figure) -> np.ndarray:
    """Draw a figure into an array (height, width, 3) uint8, RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def save_figure(figure: Figure, path: PathLike) -> None:
    """Write a figure as a PNG. The folder is created, a link is followed."""
    with atomic_write(os.path.realpath(path)) as file:
        figure.savefig(file, format='png')


def save_image(image: np.ndarray, path: PathLike) -> None:
    """Write an image (height, width, 3) uint8 as a PNG, likewise."""
    with atomic_write(os.path.realpath(path)) as file:
        matplotlib.image.imsave(file, image, format='png')
