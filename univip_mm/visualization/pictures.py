"""Pictures of what the data pipeline chooses and of how a training went.

Functions on NumPy arrays and files. They draw with Matplotlib's own objects
and Agg, never through pyplot, so they need no display and leave no state.
"""
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import matplotlib.image
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator

PathLike = Union[str, Path]

# Colours that stay apart for every kind of colour vision (Okabe and Ito).
SCENE_COLOURS = ('#0072b2', '#d55e00')
OVERLAP_COLOUR = '#00b386'
INSTANCE_COLOUR = '#ffd500'
PROPOSAL_COLOUR = '#d0d0d0'
INK = '#202020'

# Of a row, in pixels of the picture.
_MARGIN = 16
# The second scene's line is the thinner one: where both run together, each is
# seen.
_SCENE_LINES = (6.5, 3)
_GAP = 16  # the frames of two views take 8 of it
_TITLE = 34
_CAPTION = 22
_VIEWS_HEIGHT = 480  # what the zoom of the views aims at
_PHOTO_WIDTH = 620

#: The lower bound of each loss, where its weight is 1.
LOWER_BOUNDS = dict(loss_scene=-2., loss_scene_instance=-2., loss_instance=-1.)
#: What is drawn of the statistics, and what each says.
HEALTH = dict(
    projection_std='projection_std: 1 spread, 0 collapsed',
    plan_entropy='plan_entropy: 1 everything goes everywhere',
    proposal_share='proposal_share: instances that are proposals',
    uniform_marginals='uniform_marginals: fall-backs, of all marginals')
_HEALTH_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7')


def draw_scenes(image: np.ndarray,
                proposals: np.ndarray,
                scene_boxes: np.ndarray,
                overlap_box: np.ndarray,
                instance_boxes: np.ndarray,
                num_proposed: int,
                views: Sequence[np.ndarray],
                title: str = '',
                augmented: Optional[Sequence[np.ndarray]] = None
                ) -> np.ndarray:
    """A row of the sheet: where the views of an image come from, and they.

    On the photograph, all proposals are thin and grey, the scenes blue and
    orange, their overlap hatched, and the instances numbered: solid where
    they are proposals, dashed where they are random boxes. Beside it stand
    the views, pixel for pixel, enlarged by a whole number where there is
    room.

    All boxes are xyxy in pixels of the image, x2 and y2 outside.

    Args:
        image (np.ndarray): The photograph, (H, W, 3) uint8, RGB.
        proposals (np.ndarray): (N, 4); N may be 0.
        scene_boxes (np.ndarray): (2, 4).
        overlap_box (np.ndarray): (4,).
        instance_boxes (np.ndarray): (K, 4), proposals first.
        num_proposed (int): How many of the K are proposals.
        views (Sequence[np.ndarray]): [scene_1, scene_2, instance_1, ...,
            instance_K], each (h, w, 3) uint8, RGB.
        title (str): Stands above the row. Defaults to ''.
        augmented (Sequence[np.ndarray], optional): The views once more, as
            the network gets them, for a second line. Defaults to None.

    Returns:
        np.ndarray: The row, (height, width, 3) uint8, RGB. With the usual
        views (224 and 96 pixels, K = 4) it is some 2000 pixels wide, or 1400
        with ``augmented``.

    Raises:
        ValueError: The image or a view is no RGB picture of 8 bits, or there
            are not 2 + K views.
    """
    _check_picture(image, 'image')
    instance_boxes = np.asarray(instance_boxes).reshape(-1, 4)
    lines = dict(plain=list(views))
    if augmented is not None:
        lines['augmented'] = list(augmented)
    for name, line in lines.items():
        if len(line) != 2 + len(instance_boxes):
            raise ValueError(
                f'draw_scenes got {len(line)} {name} views of '
                f'{len(instance_boxes)} instance boxes: give the 2 scenes '
                'and one view of each box')
        for index, view in enumerate(line):
            _check_picture(view, f'{name} view {index}')

    zoom, places, views_size = _place_views(list(lines.values()))
    captions = ['scene 1', 'scene 2'] + [
        f'{k + 1}: {"proposal" if k < num_proposed else "random"}'
        for k in range(len(instance_boxes))
    ]
    photo_scale = min(_PHOTO_WIDTH / image.shape[1],
                      (views_size[1] - _CAPTION) / image.shape[0])
    photo_width = round(image.shape[1] * photo_scale)
    photo_height = round(image.shape[0] * photo_scale)
    views_left = 2 * _MARGIN + _PHOTO_WIDTH
    width = views_left + views_size[0] + _MARGIN
    height = _TITLE + views_size[1] + _MARGIN

    figure, axes = _pixel_axes(width, height)
    axes.text(
        _MARGIN, _TITLE / 2, title, fontsize=16, weight='bold', color=INK,
        va='center')
    left, top = _MARGIN, _TITLE + _CAPTION
    axes.imshow(
        image, extent=(left, left + photo_width, top + photo_height, top),
        aspect='auto')

    def draw(box: np.ndarray, colour: str, line: float, **kwargs) -> None:
        box = np.asarray(box, dtype=np.float64) * photo_scale
        axes.add_patch(
            Rectangle((left + box[0], top + box[1]), box[2] - box[0],
                      box[3] - box[1], edgecolor=colour, linewidth=line,
                      **{'facecolor': 'none', **kwargs}))

    for box in np.asarray(proposals).reshape(-1, 4):
        draw(box, PROPOSAL_COLOUR, 0.8, alpha=0.75,
             path_effects=_halo(1.6, 0.25))
    draw(overlap_box, OVERLAP_COLOUR, 0, alpha=0.14,
         facecolor=OVERLAP_COLOUR)
    draw(overlap_box, OVERLAP_COLOUR, 0, alpha=0.8, hatch='/')
    for box, line in zip(scene_boxes, _SCENE_LINES):
        draw(box, 'white', line + 2, alpha=0.8)
    for box, colour, line in zip(scene_boxes, SCENE_COLOURS, _SCENE_LINES):
        draw(box, colour, line)
    for k, box in enumerate(instance_boxes):
        style = '-' if k < num_proposed else (0, (4, 2.2))
        draw(box, INSTANCE_COLOUR, 2.2, linestyle=style,
             path_effects=_halo(4, 0.75))
    badges = _place_badges(instance_boxes * photo_scale + [left, top] * 2)
    for k, (x, y) in enumerate(badges):
        axes.text(
            x, y, str(k + 1), fontsize=14, weight='bold', color='black',
            ha='center', va='center',
            bbox=dict(boxstyle='circle,pad=0.2', facecolor=INSTANCE_COLOUR,
                      edgecolor='black', linewidth=1))
    for box, colour, name, corner in zip(scene_boxes, SCENE_COLOURS, captions,
                                         ('left', 'right')):
        is_first = corner == 'left'
        axes.text(
            left + box[0 if is_first else 2] * photo_scale,
            top + box[1 if is_first else 3] * photo_scale,
            name, fontsize=12, color='white', weight='bold', ha=corner,
            va='bottom' if is_first else 'top',
            bbox=dict(boxstyle='square,pad=0.25', facecolor=colour,
                      edgecolor='none'))

    colours = list(SCENE_COLOURS) + [INSTANCE_COLOUR] * len(instance_boxes)
    spots = []
    for name, line, line_places in zip(lines, lines.values(), places):
        for k, (view, (x, y)) in enumerate(zip(line, line_places)):
            x, y = views_left + x, _TITLE + y
            h, w = view.shape[0] * zoom, view.shape[1] * zoom
            style = '-' if k < 2 + num_proposed else (0, (3, 1.5))
            axes.add_patch(
                Rectangle((x - 2, y - 2), w + 4, h + 4, facecolor='none',
                          edgecolor=colours[k], linewidth=4, linestyle=style))
            caption = captions[k]
            if name == 'augmented':
                caption = caption.split(':')[0] + ' augmented'
            axes.text(x, y - 6, caption, fontsize=13, color=INK)
            spots.append((view, x, y))

    row = _render(figure)
    for view, x, y in spots:
        large = view.repeat(zoom, axis=0).repeat(zoom, axis=1)
        row[y:y + large.shape[0], x:x + large.shape[1]] = large
    return row


def scene_sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of :func:`draw_scenes`, below one legend.

    Args:
        rows (Sequence[np.ndarray]): Pictures (height, width, 3) uint8, RGB.

    Returns:
        np.ndarray: The sheet, (height, width, 3) uint8, RGB.

    Raises:
        ValueError: There is no row.
    """
    if len(rows) == 0:
        raise ValueError('there are no rows to draw: give at least one '
                         'picture of draw_scenes')
    width = max(row.shape[1] for row in rows)
    parts = [_draw_legend(width)]
    for row in rows:
        parts.append(np.full((1, width, 3), 200, np.uint8))
        parts.append(
            np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)),
                   constant_values=255))
    return np.concatenate(parts)


def draw_scene_sheet(rows: Sequence[np.ndarray], path: PathLike) -> None:
    """Write a :func:`scene_sheet` as a PNG.

    Args:
        rows (Sequence[np.ndarray]): Pictures (height, width, 3) uint8, RGB.
        path (str or Path): File to write. Its folder is made.

    Raises:
        ValueError: There is no row.
    """
    sheet = scene_sheet(rows)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(path, sheet, format='png')


def draw_proposal_histograms(counts: np.ndarray, boxes: np.ndarray,
                             path: PathLike, title: str = '') -> None:
    """Write three histograms of a proposal file as a PNG of 1800 x 520
    pixels: boxes an image, the side of a box (the square root of its area),
    and its ratio of width to height.

    Args:
        counts (np.ndarray): Boxes of each image, (I,).
        boxes (np.ndarray): All boxes, (N, 4) xyxy in pixels; N may be 0.
        path (str or Path): File to write. Its folder is made.
        title (str): Stands above. Defaults to ''.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    figure = Figure(figsize=(18, 5.2), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, weight='bold', color=INK)
    panels = figure.subplots(1, 3)
    ratios = sides[:, 0] / sides[:, 1]
    largest = max(3.0, ratios.max(initial=1), (1 / ratios).max(initial=1))
    for axes, values, bins, label in zip(
            panels, (counts, np.sqrt(sides.prod(axis=1)), ratios),
            (np.arange(counts.max(initial=0) + 2) - 0.5 if counts.max(
                initial=0) < 100 else 60, 60,
             np.geomspace(1 / largest, largest, 61)),
            ('boxes an image', 'side of a box, pixels (root of its area)',
             'width / height of a box')):
        axes.hist(values, bins=bins, color=SCENE_COLOURS[0])
        axes.set_title(label, fontsize=15, color=INK)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=12)
        axes.spines[['top', 'right']].set_visible(False)
    panels[0].set_ylabel('images', fontsize=13)
    panels[1].set_ylabel('boxes', fontsize=13)
    panels[2].set_xscale('log')
    ticks = [x for x in (1 / 8, 1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4, 8)
             if 1 / largest <= x * 1.001 and x <= largest * 1.001]
    panels[2].set_xticks(ticks, [f'1/{1 / x:g}' if x < 1 else f'{x:g}'
                                 for x in ticks])
    panels[2].minorticks_off()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(path)


def draw_proposals(image: np.ndarray, boxes: np.ndarray,
                   annotated: Optional[np.ndarray] = None, title: str = '',
                   strongest: int = 8) -> np.ndarray:
    """An image with its proposals: the first ones bold and numbered, the
    others thin; annotated boxes, where there are some, dashed.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        boxes (np.ndarray): Proposals (N, 4), xyxy in pixels of the image.
        annotated (np.ndarray, optional): (M, 4), likewise. Defaults to None.
        title (str): Stands above the image. Defaults to ''.
        strongest (int): How many are bold. Defaults to 8.

    Returns:
        np.ndarray: Picture of 660 pixels' width, uint8, RGB.
    """
    _check_picture(image, 'image')
    scale = _PHOTO_WIDTH / image.shape[1]
    scale = min(scale, _PHOTO_WIDTH / image.shape[0])
    height = round(image.shape[0] * scale)
    width = round(image.shape[1] * scale)
    figure, axes = _pixel_axes(_PHOTO_WIDTH + 2 * 20, height + _TITLE + 10)
    axes.text(20, _TITLE / 2, title, fontsize=15, weight='bold', color=INK,
              va='center')
    axes.imshow(image, extent=(20, 20 + width, _TITLE + height, _TITLE),
                aspect='auto')

    def draw(box, colour, line, **kwargs) -> None:
        x1, y1, x2, y2 = np.asarray(box, dtype=np.float64) * scale
        axes.add_patch(Rectangle((20 + x1, _TITLE + y1), x2 - x1, y2 - y1,
                                 edgecolor=colour, linewidth=line,
                                 facecolor='none', **kwargs))

    for box in boxes[strongest:]:
        draw(box, PROPOSAL_COLOUR, 0.8, alpha=0.75,
             path_effects=_halo(1.6, 0.25))
    for box in [] if annotated is None else annotated:
        draw(box, OVERLAP_COLOUR, 2.5, linestyle=(0, (4, 2)),
             path_effects=_halo(4, 0.6))
    for box in boxes[:strongest]:
        draw(box, INSTANCE_COLOUR, 2.2, path_effects=_halo(4, 0.75))
    badges = _place_badges(boxes[:strongest] * scale + [20, _TITLE] * 2)
    for number, (x, y) in enumerate(badges, 1):
        axes.text(
            x, y, str(number), fontsize=12, weight='bold', color='black',
            ha='center', va='center',
            bbox=dict(boxstyle='circle,pad=0.2', facecolor=INSTANCE_COLOUR,
                      edgecolor='black', linewidth=1))
    return _render(figure)


def draw_contact_sheet(pictures: Sequence[np.ndarray], path: PathLike,
                       columns: int = 3) -> None:
    """Write pictures (height, width, 3) uint8, RGB, of the same width side by
    side as a PNG.

    Raises:
        ValueError: There is no picture.
    """
    if len(pictures) == 0:
        raise ValueError(f"no pictures to put in '{path}': give at least one")
    rows = []
    for start in range(0, len(pictures), columns):
        row = list(pictures[start:start + columns])
        tallest = max(picture.shape[0] for picture in row)
        row += [np.full_like(row[0], 255)] * (columns - len(row))
        rows.append(np.concatenate([
            np.pad(picture[:tallest],
                   ((0, max(0, tallest - picture.shape[0])), (0, 0), (0, 0)),
                   constant_values=255) for picture in row
        ], axis=1))  # yapf: disable
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(path, np.concatenate(rows), format='png')


def read_scalars(source: Union[PathLike, Sequence[PathLike]]) -> list[dict]:
    """The training log that MMEngine's ``LocalVisBackend`` wrote.

    A resumed training writes a file of its own. It takes the place of the
    earlier ones from its first step on, since it went on from there. Lines
    without UniVIP's losses, as validation writes them, are left out, and so
    is a last line that was cut off.

    Args:
        source (str or Path or Sequence): A work dir, whose
            ``*/vis_data/scalars.json`` are read in the order of their
            folders' names, which are times; or one or more such files, the
            later ones last.

    Returns:
        list[dict]: The logged steps in their order, each with ``step`` and
        what else was logged.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is not made of JSON lines, or none holds a loss.
    """
    paths = _scalar_files(source)
    merged: list[dict] = []
    for path in paths:
        lines = sorted(_read_lines(path), key=lambda line: line['step'])
        if lines:
            first = lines[0]['step']
            merged = [line for line in merged if line['step'] < first]
            # A step that was logged twice counts as it was last.
            merged += {line['step']: line for line in lines}.values()
    if not merged:
        names = ', '.join(f"'{path}'" for path in paths)
        raise ValueError(f'no line of {names} holds one of '
                         f'{", ".join(LOWER_BOUNDS)}: give the log of a '
                         'UniVIP training that has logged a step')
    return merged


def plot_loss_curves(source: Union[PathLike, Sequence[PathLike]],
                     path: PathLike) -> None:
    """Write the curves of a training as a PNG of 1800 x 1000 pixels.

    The three losses as logged (light) and smoothed, each above its lower
    bound (for weights of 1); the learning rate; and the statistics that tell
    whether the training is healthy, where they were logged. Steps at which a
    loss is not finite are marked.

    Args:
        source (str or Path or Sequence): As for :func:`read_scalars`.
        path (str or Path): File to write. Its folder is made.

    Raises:
        FileNotFoundError: There is no log.
        ValueError: The log holds no loss.
    """
    log = read_scalars(source)
    figure = Figure(figsize=(18, 10), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3)
    last = log[-1]
    epochs = f', epoch {last["epoch"]}' if 'epoch' in last else ''
    figure.suptitle(f'Training up to iteration {last["step"]:,}{epochs}',
                    fontsize=18, weight='bold', color=INK)

    for column, (name, bound) in enumerate(LOWER_BOUNDS.items()):
        axes = figure.add_subplot(grid[0, column])
        _plot_loss(axes, *_series(log, name), name, bound)
    health = [name for name in HEALTH if len(_series(log, name)[0])]
    axes = figure.add_subplot(grid[1, 0] if health else grid[1, :])
    steps, values = _series(log, 'lr')
    axes.plot(steps, values, color=INK, linewidth=2, marker=_marker(steps))
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis='y', style='sci', scilimits=(-2, 3))
    _finish(axes, 'learning rate')
    if health:
        axes = figure.add_subplot(grid[1, 1:])
        for name in health:
            colour = _HEALTH_COLOURS[list(HEALTH).index(name)]
            _plot_smoothed(axes, *_series(log, name), colour, HEALTH[name])
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]),
                      top=max(1.05, axes.get_ylim()[1]))
        _finish(axes, 'health')
        axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.11), ncols=2,
                    fontsize=12, frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(path)


def plot_growth(series: dict[str, dict[str, dict[int, float]]],
                path: PathLike) -> None:
    """Write how cost grows as a PNG, a panel for each thing that grows.

    Both axes are logarithmic; a dotted line from a curve's first point shows
    what proportional growth would be.

    Args:
        series (dict): For each thing that grows, such as 'batch size', its
            curves: name to {its number: value}.
        path (str or Path): File to write. Its folder is made.
    """
    figure = Figure(figsize=(6.5 * len(series), 5.5), dpi=100,
                    layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for number, (name, curves) in enumerate(series.items()):
        axes = figure.add_subplot(1, len(series), number + 1)
        for colour, (label, points) in zip(_HEALTH_COLOURS, curves.items()):
            x = np.array(list(points), dtype=float)
            y = np.array(list(points.values()))
            axes.plot(x, y, 'o-', color=colour, linewidth=2.2, label=label)
            axes.plot(x, y[0] * x / x[0], ':', color=colour, alpha=0.6)
        axes.set_xscale('log', base=2)
        axes.set_yscale('log')
        axes.set_xticks(x, [f'{value:g}' for value in x])
        axes.minorticks_off()
        _finish(axes, f'by {name}')
        axes.set_xlabel(name, fontsize=12)
        axes.xaxis.set_major_locator(FixedLocator(x))
        axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.12),
                    fontsize=12, frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(path)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average, (N,), over the finite values in the window,
    which is cut off at the ends; NaN where the value itself is not finite."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    sums = np.concatenate([[0], np.where(finite, values, 0).cumsum()])
    counts = np.concatenate([[0], finite.cumsum()])
    index = np.arange(len(values))
    low = np.maximum(index - window // 2, 0)
    high = np.minimum(index + window // 2 + 1, len(values))
    number = np.maximum(counts[high] - counts[low], 1)
    return np.where(finite, (sums[high] - sums[low]) / number, np.nan)


def _check_picture(picture: np.ndarray, name: str) -> None:
    if (picture.dtype != np.uint8 or picture.ndim != 3
            or picture.shape[2] != 3):
        raise ValueError(f'draw_scenes: the {name} is {picture.dtype} of '
                         f'shape {picture.shape}: give (height, width, 3) '
                         'uint8, RGB')


def _place_views(lines: list) -> tuple[int, list, tuple[int, int]]:
    """The zoom, the top left pixel (x, y) of every view of every line, and
    the (width, height) that they take. The instances stand in two rows
    beside the scenes."""
    scene_height = max(view.shape[0] for line in lines for view in line[:2])
    scene_width = max(view.shape[1] for line in lines for view in line[:2])
    small = [view for line in lines for view in line[2:]] or [lines[0][0]]
    small_height = max(view.shape[0] for view in small)
    small_width = max(view.shape[1] for view in small)
    zoom = max(1, _VIEWS_HEIGHT // (len(lines) * scene_height))
    scene_height, scene_width = scene_height * zoom, scene_width * zoom
    small_height, small_width = small_height * zoom, small_width * zoom

    num_instances = len(lines[0]) - 2
    columns = math.ceil(num_instances / 2)
    column_width = max(small_width, 90) + _GAP  # room for the caption
    line_height = _CAPTION + max(scene_height,
                                 2 * small_height + _CAPTION + _GAP)
    places = []
    for index in range(len(lines)):
        top = index * (line_height + _GAP) + _CAPTION
        line = [(0, top), (scene_width + _GAP, top)]
        left = 2 * (scene_width + _GAP) + _GAP
        lower = top + line_height - _CAPTION - small_height
        line += [(left + (k % columns) * column_width,
                  top if k < columns else lower)
                 for k in range(num_instances)]
        places.append(line)
    width = 2 * (scene_width + _GAP) + _GAP + columns * column_width
    height = len(lines) * (line_height + _GAP)
    return zoom, places, (width, height)


def _place_badges(boxes: np.ndarray) -> list:
    """Where the number of each box (K, 4) stands: at the first of its
    corners, the middles of its sides and its centre that is clear of the
    other numbers, else where it is the clearest."""
    order = [0, 2, 6, 8, 1, 3, 5, 7, 4]  # of the 3 x 3 places in a box
    badges: list = []
    for x1, y1, x2, y2 in boxes + [13, 13, -13, -13]:
        places = np.array([(x, y) for y in (y1, (y1 + y2) / 2, y2)
                           for x in (x1, (x1 + x2) / 2, x2)])[order]
        distance = np.min(
            [np.full(len(order), np.inf)] +
            [np.hypot(*(places - badge).T) for badge in badges], axis=0)
        # Beyond 26 pixels two numbers do not touch, and more is no better.
        badges.append(places[distance.clip(max=26).argmax()])
    return badges


def _pixel_axes(width: int, height: int) -> tuple:
    """A figure whose one pair of axes counts its pixels, y downwards. With
    72 dots an inch, a point is a pixel too."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasAgg(figure)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.axis('off')
    axes.autoscale(False)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


def _render(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]


def _halo(width: float, alpha: float) -> list:
    return [withStroke(linewidth=width, foreground='black', alpha=alpha)]


def _draw_legend(width: int) -> np.ndarray:
    figure, _ = _pixel_axes(width, 44)

    def line(colour: str, label: str, thickness: float, **kwargs) -> Line2D:
        return Line2D([], [], color=colour, label=label, linewidth=thickness,
                      **kwargs)

    figure.legend(
        handles=[
            line(SCENE_COLOURS[0], 'scene 1', _SCENE_LINES[0]),
            line(SCENE_COLOURS[1], 'scene 2', _SCENE_LINES[1]),
            Patch(facecolor=OVERLAP_COLOUR, edgecolor=INK, alpha=0.5,
                  hatch='//', linewidth=0, label='overlap'),
            line(INSTANCE_COLOUR, 'instance: a proposal', 3,
                 path_effects=_halo(4.5, 0.75)),
            line(INSTANCE_COLOUR, 'instance: a random box', 3,
                 linestyle=(0, (2.6, 1.4)), path_effects=_halo(4.5, 0.75)),
            line(PROPOSAL_COLOUR, 'other proposals', 1.2,
                 path_effects=_halo(2.4, 0.5)),
        ],
        loc='center left', ncols=6, fontsize=15, frameon=False,
        handlelength=2.6, borderaxespad=0.6, columnspacing=2)
    return _render(figure)


def _scalar_files(source: Union[PathLike, Sequence[PathLike]]) -> list[Path]:
    if not isinstance(source, (str, Path)):
        return [path for part in source for path in _scalar_files(part)]
    source = Path(source)
    if source.is_file():
        return [source]
    found = sorted(source.glob('*/vis_data/scalars.json'))
    if not found:
        raise FileNotFoundError(
            f"no training log '{source}/*/vis_data/scalars.json': give the "
            'work dir of a training that has logged a step with '
            'LocalVisBackend, such as work_dirs/univip_r18_demo')
    return found


def _read_lines(path: Path) -> list[dict]:
    """The lines of one file that hold a loss."""
    texts = path.read_text().splitlines()
    lines = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError
        except ValueError:
            if number == len(texts):  # the training was stopped as it wrote
                break
            raise ValueError(
                f"line {number} of '{path}' is not a JSON object: give the "
                "scalars.json of MMEngine's LocalVisBackend") from None
        step = line.get('step', line.get('iter'))
        if step is not None and any(name in line for name in LOWER_BOUNDS):
            lines.append({**line, 'step': step})
    return lines


def _series(log: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a name, where it was logged, (N,) each."""
    points = [(line['step'], line[name]) for line in log
              if line.get(name) is not None]
    steps, values = zip(*points) if points else ((), ())
    return np.array(steps), np.array(values, dtype=np.float64)


def _marker(steps: np.ndarray) -> Optional[str]:
    return 'o' if len(steps) < 2 else None  # one point makes no line


def _plot_smoothed(axes, steps: np.ndarray, values: np.ndarray, colour: str,
                   label: Optional[str] = None) -> Optional[float]:
    """Draw the values, light, and their moving average; give its end."""
    values = np.where(np.isfinite(values), values, np.nan)
    average = smooth(values, max(3, len(values) // 25))
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
    axes.plot(steps, average, color=colour, linewidth=2.2, label=label,
              marker=_marker(steps))
    finite = average[np.isfinite(average)]
    return finite[-1] if len(finite) else None


def _plot_loss(axes, steps: np.ndarray, values: np.ndarray, name: str,
               bound: float) -> None:
    end = _plot_smoothed(axes, steps, values, SCENE_COLOURS[0])
    axes.axhline(bound, color=SCENE_COLOURS[1], linewidth=1.5,
                 linestyle=(0, (5, 3)))
    finite = values[np.isfinite(values)]
    top = max([0, *finite])
    axes.set_ylim(min([bound, *finite]) - 0.08 * (top - bound),
                  top + 0.08 * (top - bound))
    axes.annotate(f'lower bound {bound:g}', (0.99, bound), (0, 4),
                  xycoords=('axes fraction', 'data'),
                  textcoords='offset points', ha='right', fontsize=12,
                  color=SCENE_COLOURS[1])
    broken = steps[~np.isfinite(values)]
    if len(broken):
        axes.plot(broken, np.full(len(broken), 0.97), 'x', color='red',
                  transform=axes.get_xaxis_transform())
        axes.text(0.5, 0.9, f'{len(broken)} not finite, first at iteration '
                  f'{broken[0]:,}', transform=axes.transAxes, ha='center',
                  fontsize=13, color='red')
    _finish(axes, name if end is None else f'{name}: {end:.3f}')


def _finish(axes, title: str) -> None:
    axes.set_title(title, fontsize=15, color=INK)
    axes.set_xlabel('iteration', fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=12)
    axes.spines[['top', 'right']].set_visible(False)
