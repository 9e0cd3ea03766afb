"""Curves of losses, training health, and growth of the cost."""
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from ..io.atomic import PathLike
from ..io.files import parse_json
from . import style

#: Lower bound of each loss, for a loss weight of 1.
LOWER_BOUNDS = dict(loss_scene=-2., loss_scene_instance=-2., loss_instance=-1.)
#: Logged values that show the training health, with their labels.
HEALTH = dict(
    projection_std='projection_std: 1 spread, 0 collapsed',
    plan_entropy='plan_entropy: 1 for a uniform plan',
    proposal_share='proposal_share: share of instances that are proposals',
    uniform_marginals='uniform_marginals: share of marginals set to uniform')
#: Logged values that EffectiveRankHook writes, in lines without losses.
RANKS = ('rank_backbone', 'rank_projection')
_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PINK)
Source = Union[PathLike, Sequence[PathLike]]


def read_scalars(source: Source) -> list[dict]:
    """Read the training log that MMEngine's ``LocalVisBackend`` wrote.

    A resumed training writes a new file. From its first step on, the new file
    replaces the older ones. Lines of the same step are joined. Lines without
    a loss of UniVIP or an effective rank, such as those of a validation, are
    skipped, and so is a truncated last line.

    Args:
        source (str or Path or Sequence): A work dir, whose
            ``*/vis_data/scalars.json`` are read in the order of their
            folders' names, which are times; or one or more such files, the
            newest last.

    Returns:
        list[dict]: The logged values in the order of their ``step``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file has no JSON lines, or no file has a loss.
    """
    paths = _scalar_files(source)
    merged: list[dict] = []
    for path in paths:
        lines = sorted(_read_lines(path), key=lambda line: line['step'])
        if lines:
            first = lines[0]['step']
            merged = [line for line in merged if line['step'] < first]
            by_step: dict[int, dict] = {}
            for line in lines:  # if a value was logged twice, the last counts
                by_step.setdefault(line['step'], {}).update(line)
            merged += by_step.values()
    if not any(name in line for line in merged for name in LOWER_BOUNDS):
        names = ', '.join(f"'{path}'" for path in paths)
        raise ValueError(f'no line of {names} has one of '
                         f'{", ".join(LOWER_BOUNDS)}: give the log of a '
                         'UniVIP training that has logged a step')
    return merged


def plot_loss_curves(source: Source, path: PathLike) -> None:
    """Write the curves of :func:`read_scalars` as a PNG of 1800 x 1000 pixels.

    The picture has the three losses, as logged (light) and smoothed, with
    their lower bounds for loss weights of 1; the learning rate; and, if
    logged, the values of ``HEALTH``. Steps with a loss that is not finite are
    marked.
    """
    log = read_scalars(source)
    health = [name for name in HEALTH if series_of(log, name).size]
    figure = style.new_figure(1800, 1000, dpi=100, layout='constrained')
    panels = figure.subplot_mosaic(
        [[*LOWER_BOUNDS], ['lr', *['health' if health else 'lr'] * 2]])
    last = log[-1]
    epochs = series_of(log, 'epoch')[1]
    epoch = f', epoch {epochs[-1]:.0f}' if len(epochs) else ''
    figure.suptitle(f'Training up to iteration {last["step"]:,}{epoch}',
                    fontsize=18, weight='bold', color=style.INK)
    for name, bound in LOWER_BOUNDS.items():
        _plot_loss(panels[name], *series_of(log, name), name, bound)
    axes, (steps, values) = panels['lr'], series_of(log, 'lr')
    axes.plot(steps, values, color=style.INK, linewidth=2,
              marker='o' if len(steps) < 2 else '')
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis='y', style='sci', scilimits=(-2, 3))
    _style_training_axes(axes, 'learning rate')
    if health:
        _plot_health(panels['health'], log, health)
    style.save_figure(figure, path)


def plot_growth(series: dict[str, dict[str, dict[int, float]]],
                path: PathLike) -> None:
    """Write curves of a growing cost as a PNG, one panel per variable.

    Both axes are logarithmic. A dotted line from the first point of a curve
    shows proportional growth.

    Args:
        series (dict): Maps a variable, such as 'batch size', to its curves,
            and the name of a curve to its points {x: y}.
        path (str or Path): File to write.
    """
    figure = style.new_figure(650 * len(series), 550, dpi=100,
                              layout='constrained')
    panels = figure.subplots(1, len(series), squeeze=False)[0]
    for axes, (name, curves) in zip(panels, series.items()):
        for color, (label, points) in zip(_COLORS, curves.items()):
            x, y = np.array(list(points.items()), dtype=float).T
            axes.plot(x, y, 'o-', color=color, linewidth=2.2, label=label)
            axes.plot(x, y[0] * x / x[0], ':', color=color, alpha=0.6)
        axes.set_xscale('log', base=2)
        axes.set_yscale('log')
        style.finish_axes(axes, f'by {name}', xlabel=name)
        axes.xaxis.set_major_locator(FixedLocator(x))
        axes.xaxis.set_major_formatter('{x:g}')
        # Less than a decade may have no power of ten to label.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:g}')
        axes.minorticks_off()
        _legend_below(axes, -0.12)
    style.save_figure(figure, path)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Compute the centered moving average of the finite values (N,).

    The window is truncated at both ends. Values that are not finite give NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    sums, counts = (np.concatenate([[0], np.cumsum(x)])
                    for x in (np.where(finite, values, 0.), finite))
    index, half = np.arange(len(values)), window // 2
    low, high = (index + [[-half], [half + 1]]).clip(0, len(values))
    number = np.maximum(counts[high] - counts[low], 1)
    return np.where(finite, (sums[high] - sums[low]) / number, np.nan)


def _scalar_files(source: Source) -> list[Path]:
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
    """Read the lines of a file that have a loss or an effective rank."""
    texts = path.read_text().splitlines()
    lines = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = parse_json(text)
            if not isinstance(line, dict):
                raise ValueError
        except ValueError:
            if number == len(texts):  # truncated when the training stopped
                break
            raise ValueError(
                f"line {number} of '{path}' is not a JSON object: give the "
                "scalars.json of MMEngine's LocalVisBackend") from None
        step = line.get('step', line.get('iter'))
        if step is not None and any(
                name in line for name in (*LOWER_BOUNDS, *RANKS)):
            lines.append({**line, 'step': step})
    return lines


def series_of(log: Sequence[dict], name: str) -> np.ndarray:
    """Return the steps and the values of a logged name, (2, N)."""
    points = [(line['step'], line[name]) for line in log
              if line.get(name) is not None]
    return np.array(points, dtype=np.float64).reshape(-1, 2).T


def _plot_smoothed(axes: Axes, steps: np.ndarray, values: np.ndarray,
                   color: str, label: Optional[str] = None) -> np.ndarray:
    """Plot values (light) and their moving average; return the average."""
    values = np.where(np.isfinite(values), values, np.nan)
    average = smooth(values, max(3, len(values) // 25))
    axes.plot(steps, values, color=color, alpha=0.3, linewidth=1)
    axes.plot(steps, average, color=color, linewidth=2.2, label=label,
              marker='o' if len(steps) < 2 else '')  # a point has no line
    return average


def _plot_loss(axes: Axes, steps: np.ndarray, values: np.ndarray, name: str,
               bound: float) -> None:
    average = _plot_smoothed(axes, steps, values, style.BLUE)
    axes.axhline(bound, color=style.ORANGE, linewidth=1.5,
                 linestyle=(0, (5, 3)))
    finite = values[np.isfinite(values)]
    top = finite.max(initial=0)
    margin = 0.08 * (top - bound)
    axes.set_ylim(finite.min(initial=bound) - margin, top + margin)
    axes.annotate(f'lower bound {bound:g}', (0.99, bound), (0, 4),
                  xycoords=('axes fraction', 'data'), ha='right', fontsize=12,
                  textcoords='offset points', color=style.ORANGE)
    broken = steps[~np.isfinite(values)]
    if len(broken):
        axes.plot(broken, np.full(len(broken), 0.97), 'x', color='red',
                  transform=axes.get_xaxis_transform())
        axes.text(0.5, 0.9, f'{len(broken)} not finite, first at iteration '
                  f'{broken[0]:,.0f}', transform=axes.transAxes, ha='center',
                  fontsize=13, color='red')
    last = [f'{x:.3f}' for x in average[np.isfinite(average)][-1:]]
    _style_training_axes(axes, ': '.join([name, *last]))


def _plot_health(axes: Axes, log: list[dict], names: list[str]) -> None:
    for color, (name, label) in zip(_COLORS, HEALTH.items()):
        if name in names:
            _plot_smoothed(axes, *series_of(log, name), color, label)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0, low), max(1.05, high))
    _style_training_axes(axes, 'health')
    _legend_below(axes, -0.11, ncols=2)


def _legend_below(axes: Axes, y: float, ncols: int = 1) -> None:
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, y), ncols=ncols,
                fontsize=12, frameon=False)


def _style_training_axes(axes: Axes, title: str) -> None:
    style.finish_axes(axes, title, xlabel='iteration')
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
