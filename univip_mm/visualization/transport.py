"""Picture of the transport plans of the instance-instance loss."""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ..io.atomic import PathLike
from . import style

_ONLINE, _TARGET = style.SCENE_COLORS
# Lengths in the coordinates of the plan, about pixels of the picture.
_SIDE, _STEP = 84, 100  # of an instance
_BAR = 76  # of all mass
_REACH = 300  # from online to target instances
_MARGINAL = 118  # room for a bar and its number


class PlanRow(NamedTuple):
    """Row of :func:`draw_transport`."""
    title: str
    scene: np.ndarray  # (h, w, 3) uint8, RGB
    boxes: np.ndarray  # (K, 4) xyxy in pixels of the scene
    instances: Sequence[np.ndarray]  # K of (s, s, 3) uint8, RGB
    similarity: np.ndarray  # (K, K)
    plan: np.ndarray  # (K, K)
    supply: np.ndarray  # (K,)
    demand: np.ndarray  # (K,)


def draw_transport(rows: Sequence[PlanRow], path: PathLike,
                   title: str = '') -> None:
    """Write transport plans as a PNG, a row per image.

    Left: the scene with its numbered instances. Middle: online and target
    instances. The width of a line is the mass that the plan moves, the bars
    are the marginals, that is the sums of the plan's rows and columns. Right:
    the cosines, with a frame around the largest mass of each row of the plan.
    """
    style.check_rows(rows, 'images', path)
    number = max(len(row.instances) for row in rows)
    height = number * _STEP
    widths = [416, 2 * (_MARGINAL + _SIDE) + _REACH, 60 + height]
    figure, body = style.titled_figure(
        sum(widths) + 100, 76 + len(rows) * (height + 96), title,
        'Width and number of a line: mass that the plan moves, in percent '
        '(no number below 1 %). Bars: marginals, in percent. Frame: largest '
        "mass of an online instance's row.")
    for part, row in zip(style.split_rows(body, rows), rows):
        scene, plan, cosines = part.subplots(1, 3, width_ratios=widths)
        scene.axis('off')
        scale = min(widths[0] / row.scene.shape[1],
                    height / row.scene.shape[0])
        style.show_image(scene, row.scene)
        style.draw_instances(scene, row.boxes, scale)
        _draw_plan(plan, row)
        _draw_cosines(cosines, row)
    style.save_figure(figure, path)


def line_widths(plan: np.ndarray, widest: float) -> np.ndarray:
    """Compute line widths (K, K), proportional to the mass of a plan (K, K).

    Widths of different plans are comparable: the whole mass of one of K equal
    instances has the width ``widest``.
    """
    return plan * len(plan) * widest


def _draw_plan(axes: Axes, row: PlanRow) -> None:
    number = len(row.instances)
    online, target = _MARGINAL, _MARGINAL + _SIDE + _REACH
    right = target + _SIDE
    centers = [_SIDE / 2 + k * _STEP for k in range(number)]
    axes.axis('off')
    _draw_lines(axes, row.plan, online + _SIDE + 6, target - 6, centers)
    for k, (image, y) in enumerate(zip(row.instances, centers)):
        _draw_instance(axes, image, online, y, k + 1, _ONLINE)
        _draw_instance(axes, image, target, y, k + 1, _TARGET)
        _draw_marginal(axes, online - 8, y, -row.supply[k], _ONLINE)
        _draw_marginal(axes, right + 8, y, row.demand[k], _TARGET)
    for x, ha, text in ((online - 8, 'right', 'supply'),
                        (online, 'left', 'online'),
                        (target + _SIDE, 'right', 'target'),
                        (right + 8, 'left', 'demand')):
        axes.text(x, -14, text, fontsize=13, color=style.INK, ha=ha,
                  va='center')
    axes.set(xlim=(0, right + _MARGINAL), aspect='equal',
             ylim=(number * _STEP - _STEP + _SIDE, -22))


def _draw_instance(axes: Axes, image: np.ndarray, x: float, y: float,
                   number: int, color: str) -> None:
    box = np.array([x, y - _SIDE / 2, x + _SIDE, y + _SIDE / 2])
    axes.imshow(image, extent=box[[0, 2, 3, 1]])
    style.draw_box(axes, box, color, 3.5)
    style.draw_number(axes, x + 14, box[1] + 14, number)


def _draw_marginal(axes: Axes, x: float, y: float, mass: float,
                   color: str) -> None:
    """Draw the bar of a mass, to the left if the mass is negative."""
    axes.barh(y, mass * _BAR, height=26, left=x, color=color)
    axes.text(x + mass * _BAR + math.copysign(4, mass), y,
              f'{100 * abs(mass):.0f}', fontsize=12, color=style.INK,
              ha='right' if mass < 0 else 'left', va='center')


def _draw_lines(axes: Axes, plan: np.ndarray, left: float, right: float,
                centers: list) -> None:
    widths = line_widths(plan, 26)
    order = [divmod(i, len(plan)) for i in np.argsort(plan, axis=None)]
    for m, n in order:
        if widths[m, n] >= 0.15:  # thinner lines are invisible
            axes.plot([left, right], [centers[m], centers[n]], color=style.INK,
                      linewidth=widths[m, n], solid_capstyle='butt',
                      alpha=0.25 + 0.35 * plan[m, n] / plan.max())
    # The largest masses choose the places of their numbers first.
    used: list = []
    for m, n in reversed(order):
        if plan[m, n] < 0.01:
            continue
        places = [(left + t * (right - left),
                   centers[m] + t * (centers[n] - centers[m]))
                  for t in (0.22, 0.32, 0.42, 0.78, 0.68, 0.58, 0.12, 0.88)]
        # Numbers more than 36 pixels apart do not touch.
        distances = [min([36, *(math.hypot(x - a, 1.6 * (y - b))
                                for a, b in used)]) for x, y in places]
        used.append(places[np.argmax(distances)])
        axes.text(*used[-1], f'{100 * plan[m, n]:.0f}', fontsize=11,
                  color=style.INK, ha='center', va='center',
                  bbox=dict(boxstyle='round,pad=0.15', facecolor='white',
                            edgecolor='#909090', linewidth=0.6))


def _draw_cosines(axes: Axes, row: PlanRow) -> None:
    number = len(row.similarity)
    shown = axes.imshow(row.similarity, cmap=style.COLORMAP)
    style.caption(axes, 'cosine of online (row) and target')
    ticks = dict(labels=range(1, number + 1), fontsize=13, weight='bold')
    axes.set_yticks(range(number), color=_ONLINE, **ticks)
    axes.set_xticks(range(number), color=_TARGET, **ticks)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for m, n in np.ndindex(number, number):
        value = row.similarity[m, n]
        axes.text(n, m, f'{value:.2f}', fontsize=14, ha='center', va='center',
                  color='black' if shown.norm(value) > 0.6 else 'white')
    for m, n in enumerate(row.plan.argmax(axis=1)):
        box = np.array([n, m, n, m]) + [-.45, -.45, .45, .45]
        style.draw_box(axes, box, _TARGET, 3.5)
