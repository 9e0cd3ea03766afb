"""Charts and pictures of a report, as data URIs."""
import base64
import io
import re
from pathlib import Path
from typing import NamedTuple, Optional

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from PIL import Image, features

from . import style
from .curves import series_of, smooth

_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PINK)
_MAX_POINTS = 300
_MAX_WIDTH = 1000  # pixels of a photograph
# Stands for the color of text, which is light on dark screens. Matplotlib
# knows colors only.
_TEXT = '#010203'
_STYLE = ('<style>svg{color:#202020}@media (prefers-color-scheme:dark)'
          '{svg{color:#d8dce2}}@media print{svg{color:#202020}}</style>')
# Text stays text: crisp, small, and in the reader's font.
_RC = {'svg.fonttype': 'none', 'svg.hashsalt': 'univip'}


class Chart(NamedTuple):
    """Chart of logged values over the iterations.

    Attributes:
        title (str): Title.
        help (str): One sentence on what to look for.
        names (dict[str, str]): Logged names with their labels; of a single
            value the label is not shown.
        bound (float, optional): Value with a dashed line.
        low (float, optional): End of the y axis, at most.
        high (float, optional): Other end, at least.
    """
    title: str
    help: str
    names: dict[str, str]
    bound: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None


class Picture(NamedTuple):
    """Picture of a report: title, explanation, data URI, alternative text."""
    title: str
    help: str
    uri: str
    alt: str


def draw_chart(log: list[dict], chart: Chart) -> Optional[Picture]:
    """Draw a chart as an SVG, or return None if nothing is logged."""
    found = {label: series_of(log, name)
             for name, label in chart.names.items()}
    found = {label: series for label, series in found.items()
             if np.isfinite(series[1]).any()}
    if not found:
        return None
    figure = Figure(figsize=(4.4, 2.6), layout='constrained')
    axes = figure.subplots()
    alt = []
    for color, (label, (steps, values)) in zip(_COLORS, found.items()):
        _plot(axes, steps, values, color, label)
        finite = values[np.isfinite(values)]
        alt.append(f'{label} from {finite[0]:.3g} to {finite[-1]:.3g}')
    axes.set_xlim(0, 1.02 * max(log[-1]['step'], 1))  # of all charts alike
    _finish(axes, chart, len(found))
    return Picture(chart.title, chart.help, _svg_uri(figure),
                   f'Curve over the iterations: {"; ".join(alt)}')


def photograph(path: Path, title: str, help: str) -> Optional[Picture]:
    """Return a picture file, reduced, or None if it cannot be read."""
    try:
        with Image.open(path) as image:
            image = image.convert('RGB')
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((_MAX_WIDTH, 10 * _MAX_WIDTH), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    kind = 'webp' if features.check('webp') else 'jpeg'  # half the size
    image.save(file, kind, quality=70)
    return Picture(title, help, _uri(f'image/{kind}', file.getvalue()), title)


def _plot(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str,
          label: str) -> None:
    """Plot values (light, if many) and their moving average."""
    values = np.where(np.isfinite(values), values, np.nan)
    average = smooth(values, max(1, len(values) // 25))
    step = -(-len(values) // _MAX_POINTS)
    if len(values) > 20:
        axes.plot(steps[::step], values[::step], color=color, alpha=0.3,
                  linewidth=0.8)
    axes.plot(steps[::step], average[::step], color=color, linewidth=1.8,
              label=label, marker='o' if len(steps) < 20 else '',
              markersize=3)


def _finish(axes: Axes, chart: Chart, number: int) -> None:
    if chart.bound is not None:
        axes.axhline(chart.bound, color=_TEXT, linewidth=1, alpha=0.6,
                     linestyle=(0, (4, 3)))
    low, high = axes.get_ylim()
    low = low if chart.low is None else min(low, chart.low)
    high = high if chart.high is None else max(high, chart.high)
    axes.set_ylim(low, high + 0.03 * (high - low))  # not to cut a line
    axes.set_xlabel('iteration', color=_TEXT, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.tick_params(labelsize=9, colors=_TEXT)
    axes.grid(color=_TEXT, alpha=0.15, linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[:].set_color(_TEXT)
    axes.patch.set_alpha(0)
    if number > 1:
        axes.legend(loc='upper center', bbox_to_anchor=(0.5, 1.2),
                    ncols=number, fontsize=9, frameon=False,
                    labelcolor=_TEXT, handlelength=1.2, columnspacing=1.2)


def _svg_uri(figure: Figure) -> str:
    figure.patch.set_alpha(0)
    file = io.StringIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(file, format='svg', metadata={
            'Date': None, 'Creator': None, 'Format': None, 'Type': None})
    text = file.getvalue().replace(_TEXT, 'currentColor')
    text = re.sub("(font: [^']*)'DejaVu Sans'", r'\1system-ui', text)
    text = text[text.index('<svg'):]
    head, end, rest = text.partition('>')
    return _uri('image/svg+xml', f'{head}{end}{_STYLE}{rest}'.encode())


def _uri(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'
