"""Report of a training as one HTML file, without network or scripts."""
import datetime
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from jinja2 import Environment, PackageLoader

from ..io.atomic import atomic_write
from ..utils.text import printable
from . import verdict
from .curves import LOWER_BOUNDS
from .report_pictures import Chart, Picture, draw_chart, photograph
from .run_files import RUNNING, RunFiles, read_run, shorten, value_at

FILE = 'report.html'
#: Picture of nearest neighbours in the folder of the training.
NEIGHBOURS = 'neighbours.png'
#: Seconds after which the page of a running training is loaded again.
RELOAD = 60
_NUM_VIEWS = 4

LOSS_CHARTS = (
    Chart('Scene–scene loss', 'Falls, fast at first. The dashed line is its '
          'lower bound.', dict(loss_scene='loss_scene'),
          bound=LOWER_BOUNDS['loss_scene'], high=0),
    Chart('Scene–instance loss', 'Falls as the fused instances come closer '
          'to the scenes.', dict(loss_scene_instance='loss_scene_instance'),
          bound=LOWER_BOUNDS['loss_scene_instance'], high=0),
    Chart('Instance–instance loss', 'Falls as matched instances become '
          'similar.', dict(loss_instance='loss_instance'),
          bound=LOWER_BOUNDS['loss_instance'], high=0),
    Chart('Learning rate', 'Rises in the warm-up, then falls to 0.',
          dict(lr='learning rate'), low=0))
HEALTH_CHARTS = (
    Chart('Spread of the projections', 'projection_std: 1 is an even spread. '
          f'Below {verdict.COLLAPSED_STD:g} (dashed) is a collapse.',
          dict(projection_std='projection_std'), bound=verdict.COLLAPSED_STD,
          low=0, high=1),
    Chart('Effective rank', 'Number of directions that the features use. '
          'Near 1 is a collapse. Compare runs only with equal settings.',
          dict(rank_projection='projection', rank_backbone='backbone'),
          low=0),
    Chart('Transport plan', 'plan_entropy falls as the network distinguishes '
          'instances. uniform_marginals should be near 0.',
          dict(plan_entropy='plan_entropy',
               uniform_marginals='uniform_marginals'), low=0, high=1),
    Chart('Instances that are proposals', 'proposal_share: near 1. The others '
          'are random boxes.', dict(proposal_share='proposal_share'), low=0,
          high=1))
SPEED_CHARTS = (
    Chart('Images per second', 'All processes together.',
          dict(images_per_second='images per second'), low=0),
    Chart('Time per iteration, seconds', 'If waiting for data is a large '
          'part, the loader is too slow.',
          dict(time='iteration', data_time='of it, waiting for data'), low=0))


def write_report(out: Union[str, Path],
                 state: Optional[str] = None) -> Path:
    """Write ``report.html`` into the folder of a training.

    The file needs no network, no scripts and no other file. Texts of files
    are escaped. Parts whose files are missing are left out.

    Args:
        out (str or Path): Work dir of ``tools/train.py``, or a folder whose
            ``checkpoints`` is such a work dir.
        state (str, optional): 'running', 'finished' or 'stopped'. By default,
            the last checkpoint and the lock of the work dir decide.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: The folder has no log of a training.
        ValueError: The log is damaged.
        OSError: The file cannot be written.
    """
    run = read_run(out, state)
    environment = Environment(
        loader=PackageLoader('univip_mm.visualization', '.'),
        autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template('report.html').render(_content(run))
    path = run.out / FILE
    with atomic_write(path) as file:  # bytes: a name may have surrogates
        file.write(text.encode('utf-8', 'backslashreplace'))
    return path


def _content(run: RunFiles) -> dict[str, Any]:
    """Return the values of the template."""
    log = _with_speed(run)
    share = run.iteration / run.max_iters if run.max_iters else 0
    return dict(
        title=printable(run.out.resolve().name or run.out),
        state=run.state, reload=RELOAD if run.state == RUNNING else 0,
        written=datetime.datetime.now().strftime('%Y-%m-%d %H:%M:%S'),
        percent=round(100 * min(1, share), 1), verdict=verdict.judge(log),
        facts=_facts(run, log),
        sections=[(title, pictures) for title, charts in (
            ('Losses', LOSS_CHARTS), ('Is it collapsing?', HEALTH_CHARTS),
            ('Speed', SPEED_CHARTS)) if (pictures := [
                x for chart in charts if (x := draw_chart(log, chart))])],
        views=_views(run), neighbours=photograph(
            run.out / NEIGHBOURS, 'Nearest neighbours',
            'Each row: an image of the training data, then the images whose '
            'backbone features are most similar, without labels. Good rows '
            'share objects; poor rows share only a color or a brightness.'),
        skipped=run.skipped, choices=run.choices, versions=run.versions,
        config=printable_lines(shorten(run.config_text)))


def _with_speed(run: RunFiles) -> list[dict]:
    """Add ``images_per_second`` to the lines of the log."""
    batch = _batch_size(run)
    return [{**line, 'images_per_second': batch / line['time']}
            if batch and line.get('time') else line for line in run.log]


def _batch_size(run: RunFiles) -> int:
    """Return the images of an iteration of all processes, 0 if unknown."""
    batch = value_at(run.config, 'train_dataloader', 'batch_size')
    number = run.versions.get('GPU number', '1')
    return (batch * int(number) if isinstance(batch, int)
            and number.isdecimal() else 0)


def _facts(run: RunFiles, log: list[dict]) -> list[tuple[str, str]]:
    """Return names and values of the table at the top."""
    facts = [('iteration', f'{run.iteration:,} of {run.max_iters:,}'
              if run.max_iters else f'{run.iteration:,}')]
    if run.epoch:
        facts.append(('epoch', f'{run.epoch} of {run.max_epochs}'
                      if run.max_epochs else f'{run.epoch}'))
    time = verdict.recent(log, 'time')
    if np.isfinite(time) and run.state == RUNNING and run.max_iters:
        facts.append(('time left', _duration(
            time * max(0, run.max_iters - run.iteration))))
    elif np.isfinite(time):
        mean = np.nanmean([x['time'] for x in log if x.get('time')])
        facts.append(('time of the iterations',
                      _duration(mean * run.iteration)))
    names = (('images per second', 'images_per_second', '{:,.3g}'),
             ('loss', 'loss', '{:.3f}'),
             ('projection_std', 'projection_std', '{:.3f}'),
             ('rank_projection', 'rank_projection', '{:.1f}'),
             ('rank_backbone', 'rank_backbone', '{:.1f}'))
    for title, name, form in names:
        value = (verdict.last if 'rank' in name else verdict.recent)(log, name)
        if np.isfinite(value):
            facts.append((title, form.format(value)))
    waiting = verdict.recent(log, 'data_time') / time
    if np.isfinite(waiting):
        facts.append(('waiting for data', f'{waiting:.0%}'))
    return facts


def _views(run: RunFiles) -> list[Picture]:
    """Return pictures of the views: before the training, and over time."""
    found = [photograph(
        run.out / 'views.png', 'Before the training', 'Photographs with '
        'proposals, scenes, overlap and instances, and the views.')]
    epochs = sorted(run.views)
    picked = {epochs[round(i)] for i in np.linspace(
        0, len(epochs) - 1, _NUM_VIEWS)} if epochs else ()
    found += [photograph(
        run.views[epoch], f'Epoch {epoch}',
        'The same photographs, with the views that the network got in this '
        'epoch.') for epoch in sorted(picked)]
    return [x for x in found if x]


def _duration(seconds: float) -> str:
    """Return a time as '2 d 3 h', '3 h 20 min', '20 min' or '20 s'."""
    minutes, hours = divmod(round(seconds / 60), 60)[::-1]
    days, rest = divmod(hours, 24)
    if days:
        return f'{days} d {rest} h'
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min' if seconds >= 90 else f'{seconds:.0f} s'


def printable_lines(text: str) -> str:
    """Escape the control characters of a text, except for its newlines."""
    return '\n'.join(map(printable, text.splitlines()))
