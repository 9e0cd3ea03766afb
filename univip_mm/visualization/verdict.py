"""Judgement of a training by its log, in plain words."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .curves import LOWER_BOUNDS, series_of

# Levels of a verdict, from good to bad.
GOOD, EARLY, WATCH, BAD = 'good', 'early', 'watch', 'bad'

#: Log lines below which it is too early to say anything.
MIN_LINES = 5
#: Spread of the projections below which they have collapsed. NonFiniteHook
#: warns below the same value.
COLLAPSED_STD = 0.1
#: Effective rank of the projections below which they have collapsed.
COLLAPSED_RANK = 2.
#: Spread below which a training should be watched.
LOW_STD = 0.3
#: Fall of the sum of the losses, from the first to the last quarter of the
#: log, below which the loss counts as flat. The sum can fall from 5 to -5.
MIN_FALL = 0.02
#: Share of the losses' range at which a loss at its bound is suspicious.
AT_BOUND = 0.01


class Verdict(NamedTuple):
    """Judgement of a training: level, one line, and further remarks."""
    level: str
    text: str
    notes: list[str]


def judge(log: Sequence[dict]) -> Verdict:
    """Judge a training by the lines of :func:`read_scalars`.

    The rules, in this order; recent values are the median of the last tenth
    of the lines, at least three:

    1. bad: the last loss is not finite.
    2. early: the log has less than ``MIN_LINES`` lines with losses.
    3. bad: the recent ``projection_std`` is below ``COLLAPSED_STD``, or the
       last ``rank_projection`` is below ``COLLAPSED_RANK``.
    4. watch: the recent ``projection_std`` is below ``LOW_STD``.
    5. watch: the sum of the losses fell by less than ``MIN_FALL``.
    6. good, else.
    """
    log = list(log)
    steps, losses = series_of(log, 'loss')
    notes = _notes(log)
    if len(losses) and not np.isfinite(losses[-1]):
        first = steps[~np.isfinite(losses)][0]
        return Verdict(BAD, 'diverged: the loss is not finite since '
                       f'iteration {first:,.0f}', notes)
    if len(losses) < MIN_LINES:
        return Verdict(EARLY, f'too early to say: {len(losses)} lines of the '
                       f'log, at least {MIN_LINES} are needed', notes)
    spread, rank = recent(log, 'projection_std'), last(log, 'rank_projection')
    if spread < COLLAPSED_STD:
        return Verdict(BAD, f'collapsing: projection_std is {spread:.2f}, '
                       f'below {COLLAPSED_STD:g}: all images get nearly the '
                       'same projection', notes)
    if rank < COLLAPSED_RANK:
        return Verdict(BAD, f'collapsing: rank_projection is {rank:.1f}, '
                       f'below {COLLAPSED_RANK:g}: the projections use a '
                       'single direction', notes)
    if spread < LOW_STD:
        return Verdict(WATCH, f'watch it: projection_std is {spread:.2f}, '
                       f'below {LOW_STD:g}; a collapse is near '
                       f'{COLLAPSED_STD:g}', notes)
    finite = losses[np.isfinite(losses)]
    quarter = max(1, len(finite) // 4)
    before, after = finite[:quarter].mean(), finite[-quarter:].mean()
    if before - after < MIN_FALL:
        return Verdict(WATCH, 'watch it: the loss does not fall '
                       f'({before:.2f} in the first quarter, {after:.2f} in '
                       'the last). Late in a training, this can be normal: '
                       'compare projection_std and the ranks', notes)
    signs = [f'the loss fell from {before:.2f} to {after:.2f}']
    if np.isfinite(spread):
        signs.append(f'projection_std is {spread:.2f}')
    if np.isfinite(rank):
        signs.append(f'rank_projection is {rank:.0f}')
    return Verdict(GOOD, f'healthy: {", ".join(signs)}', notes)


def recent(log: list[dict], name: str) -> float:
    """Return the median of the last tenth of a logged value, NaN if none."""
    values = series_of(log, name)[1]
    values = values[np.isfinite(values)]
    return float(np.median(values[-max(3, len(values) // 10):])
                 ) if len(values) else float('nan')


def last(log: list[dict], name: str) -> float:
    """Return the last logged value, NaN if there is none."""
    values = series_of(log, name)[1]
    return float(values[-1]) if len(values) else float('nan')


def _notes(log: list[dict]) -> list[str]:
    """Return remarks that do not depend on the level."""
    notes = []
    share = recent(log, 'proposal_share')
    if share < 0.5:
        notes.append(f'Only {share:.0%} of the instances are proposals, the '
                     'others are random boxes: lower min_size, or use other '
                     'proposals')
    waiting = recent(log, 'data_time') / max(recent(log, 'time'), 1e-9)
    if waiting > 0.3:
        notes.append(f'The network waits for data during {waiting:.0%} of the '
                     'time: raise num_workers, or decode the images once, '
                     'with `univip cache`')
    for name, bound in LOWER_BOUNDS.items():
        value = recent(log, name)
        if value < bound * (1 - AT_BOUND):
            notes.append(f'{name} is {value:.3f}, at its lower bound '
                         f'{bound:g}: early in a training, this is a collapse')
    return notes
