"""Pictures of training samples: the boxes on the image, and the views."""
import math
from collections.abc import Sequence
from typing import Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..io.atomic import PathLike
from . import style

# Lengths in pixels of the picture.
_MARGIN = 16
_GAP = 16  # includes the frames of two neighbouring views, 4 each
_CAPTION_HEIGHT = 22
_MIN_COLUMN_WIDTH = 90  # fits a caption
_VIEWS_HEIGHT = 480  # target of the zoom
# The second scene has the thinner line: where the lines coincide, both are
# visible.
_SCENE_LINE_WIDTHS = (6.5, 3)


def draw_scenes(image: np.ndarray, proposals: np.ndarray,
                scene_boxes: np.ndarray, overlap_box: np.ndarray,
                instance_boxes: np.ndarray, num_proposed: int,
                views: Sequence[np.ndarray], title: str = '',
                augmented: Optional[Sequence[np.ndarray]] = None,
                image_size: int = style.PHOTO_SIZE) -> np.ndarray:
    """Draw an image with its boxes, and its views to the right.

    Proposals are thin and gray, the scenes blue and orange, their overlap
    hatched. Instances are numbered, solid if they are proposals, dashed if
    they are random boxes. All boxes are xyxy in pixels of the image.

    Args:
        image (np.ndarray): Whole image, (H, W, 3) uint8, RGB.
        proposals (np.ndarray): (N, 4); N may be 0.
        scene_boxes (np.ndarray): (2, 4).
        overlap_box (np.ndarray): (4,).
        instance_boxes (np.ndarray): (K, 4), proposals first.
        num_proposed (int): Number of instances that are proposals.
        views (Sequence[np.ndarray]): [scene_1, scene_2, instance_1, ...,
            instance_K], each (h, w, 3) uint8, RGB. The scenes have one
            size, and so have the instances.
        title (str): Title of the row. Defaults to ''.
        augmented (Sequence[np.ndarray], optional): The views after
            augmentation, for a second line. Defaults to None.
        image_size (int): Largest width of the image, pixels. Defaults to 620.

    Returns:
        np.ndarray: Picture (height, width, 3) uint8, RGB.

    Raises:
        ValueError: An image is not uint8 RGB, or there are not 2 + K views.
    """
    instance_boxes = np.asarray(instance_boxes).reshape(-1, 4)
    lines = [views] if augmented is None else [views, augmented]
    _check_views(image, lines, len(instance_boxes))
    zoom, corners, (width, height) = _place_views(lines)
    left = 2 * _MARGIN + image_size
    top = style.TITLE_HEIGHT
    figure = style.new_figure(left + width + _MARGIN, top + height + _MARGIN)
    canvas = style.pixel_axes(figure)
    canvas.text(_MARGIN, top / 2, style.plain(title), fontsize=16,
                weight='bold', color=style.INK, va='center')
    axes, scale = style.photo_axes(figure, image, _MARGIN,
                                   top + _CAPTION_HEIGHT, image_size,
                                   height - _CAPTION_HEIGHT)
    _draw_boxes(axes, scale, proposals, scene_boxes, overlap_box,
                instance_boxes, num_proposed)
    for index, (line, places) in enumerate(zip(lines, corners)):
        for k, (view, (x, y)) in enumerate(zip(line, places)):
            _draw_view(canvas, view.repeat(zoom, 0).repeat(zoom, 1),
                       left + x, top + y, k, num_proposed,
                       is_augmented=index == 1)
    return style.render(figure)


def scene_grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack pictures of :func:`draw_scenes` below a legend."""
    if len(rows) == 0:
        raise ValueError('there are no rows to draw: give at least one '
                         'picture of draw_scenes')
    width = max(row.shape[1] for row in rows)
    parts = [_draw_legend(width)]
    for row in rows:
        parts += [np.full((1, width, 3), 200, np.uint8),  # a gray line
                  style.pad_image(row, row.shape[0], width)]
    return np.concatenate(parts)


def draw_scene_grid(rows: Sequence[np.ndarray], path: PathLike) -> None:
    """Write the :func:`scene_grid` of pictures as a PNG."""
    style.save_image(scene_grid(rows), path)


def _check_views(image: np.ndarray, lines: list, num_instances: int) -> None:
    style.check_image(image, 'draw_scenes: the image')
    for name, line in zip(('plain', 'augmented'), lines):
        if len(line) != 2 + num_instances:
            raise ValueError(
                f'draw_scenes got {len(line)} {name} views for '
                f'{num_instances} instance boxes: give the 2 scenes and one '
                'view per box')
        for index, view in enumerate(line):
            style.check_image(view, f'draw_scenes: the {name} view {index}')


def _place_views(lines: list) -> tuple[int, list, tuple[int, int]]:
    """Compute the zoom, the corner of each view, and the total size.

    The corners are the top left pixels (x, y) of the views of each line.
    Views are shown pixel for pixel, enlarged by a whole number. Matplotlib's
    layouts place axes at fractions of pixels and would resample the views, so
    the places are computed here. Instances form two rows beside the scenes.
    """
    scene, *_, instance = lines[0]
    zoom = max(1, _VIEWS_HEIGHT // (len(lines) * len(scene)))
    height, width = zoom * scene.shape[0], zoom * scene.shape[1]
    small_height, small_width = (zoom * x for x in instance.shape[:2])
    number = len(lines[0]) - 2
    columns = math.ceil(number / 2)
    column_width = max(small_width, _MIN_COLUMN_WIDTH) + _GAP
    line_height = _CAPTION_HEIGHT + max(
        height, 2 * small_height + _CAPTION_HEIGHT + _GAP)
    left = 2 * (width + _GAP) + _GAP
    corners = []
    for index in range(len(lines)):
        top = index * (line_height + _GAP) + _CAPTION_HEIGHT
        lower = top + line_height - _CAPTION_HEIGHT - small_height
        corners.append([(0, top), (width + _GAP, top)] + [
            (left + k % columns * column_width, top if k < columns else lower)
            for k in range(number)])  # yapf: disable
    return zoom, corners, (left + columns * column_width,
                           len(lines) * (line_height + _GAP))


def _draw_boxes(axes: Axes, scale: float, proposals: np.ndarray,
                scene_boxes: np.ndarray, overlap_box: np.ndarray,
                instance_boxes: np.ndarray, num_proposed: int) -> None:
    """Draw the boxes of :func:`draw_scenes` on its image."""
    for box in np.asarray(proposals).reshape(-1, 4):
        style.draw_proposal(axes, box)
    overlap = (overlap_box, style.OVERLAP_COLOR, 0)
    style.draw_box(axes, *overlap, alpha=0.14, facecolor=style.OVERLAP_COLOR)
    style.draw_box(axes, *overlap, alpha=0.8, hatch='/')
    for box, width in zip(scene_boxes, _SCENE_LINE_WIDTHS):
        style.draw_box(axes, box, 'white', width + 2, alpha=0.8)
    for box, color, width in zip(scene_boxes, style.SCENE_COLORS,
                                 _SCENE_LINE_WIDTHS):
        style.draw_box(axes, box, color, width)
    style.draw_instances(axes, instance_boxes, scale, fontsize=14,
                         num_solid=num_proposed)
    # In opposite corners: the scenes often share an edge.
    for name, color, (x, y), ha, va in zip(
            ('scene 1', 'scene 2'), style.SCENE_COLORS,
            (scene_boxes[0][:2], scene_boxes[1][2:]), ('left', 'right'),
            ('bottom', 'top')):
        label = dict(boxstyle='square,pad=0.25', facecolor=color,
                     edgecolor='none')
        axes.text(x, y, name, fontsize=12, color='white', weight='bold',
                  ha=ha, va=va, bbox=label)


def _draw_view(canvas: Axes, view: np.ndarray, x: int, y: int, index: int,
               num_proposed: int, is_augmented: bool) -> None:
    """Draw a view with its frame and caption, top left at pixel (x, y)."""
    is_random = index >= 2 + num_proposed
    if index < 2:
        caption, kind = f'scene {index + 1}', ''
        color = style.SCENE_COLORS[index]
    else:
        caption, color = str(index - 1), style.INSTANCE_COLOR
        kind = ': random' if is_random else ': proposal'
    height, width = view.shape[:2]
    style.draw_box(canvas, np.array([x - 2, y - 2, x + width + 2,
                                     y + height + 2]), color, 4,
                   linestyle=(0, (3, 1.5)) if is_random else '-')
    canvas.text(x, y - 6, caption + (' augmented' if is_augmented else kind),
                fontsize=13, color=style.INK)
    # Unlike imshow, figimage never resamples. It counts from the bottom.
    canvas.figure.figimage(view, x, canvas.get_ylim()[0] - y - height)


def _draw_legend(width: int) -> np.ndarray:
    scenes = [Line2D([], [], color=color, lw=width, label=f'scene {k}')
              for k, (color, width) in enumerate(
                  zip(style.SCENE_COLORS, _SCENE_LINE_WIDTHS), 1)]
    overlap = Patch(facecolor=style.OVERLAP_COLOR, edgecolor=style.INK,
                    alpha=0.5, hatch='//', linewidth=0, label='overlap')
    boxes = [Line2D([], [], color=color, lw=width, label=label, linestyle=dash,
                    path_effects=halo)
             for color, width, label, dash, halo in (
                 (style.INSTANCE_COLOR, 3, 'instance: a proposal', '-',
                  style.halo(4.5, 0.75)),
                 (style.INSTANCE_COLOR, 3, 'instance: a random box',
                  (0, (2.6, 1.4)), style.halo(4.5, 0.75)),
                 (style.PROPOSAL_COLOR, 1.2, 'other proposals', '-',
                  style.halo(2.4, 0.5)))]
    figure = style.new_figure(width, 44)
    figure.legend(handles=[*scenes, overlap, *boxes], loc='center left',
                  ncols=6, fontsize=15, frameon=False, handlelength=2.6,
                  borderaxespad=0.6, columnspacing=2)
    return style.render(figure)
