"""Results as tables in Markdown, with their statistics."""
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, Optional, Union

import numpy as np

from .settings import MEASURES, METHODS

# Signs of the scene-instance and the instance-instance term, for methods on
# overlap scenes.
TERMS = dict(
    byol_overlap=(-1, -1), scene_instance=(1, -1), instance_instance=(-1, 1),
    univip=(1, 1))
# Logged values that may predict how good a run is.
INDICATORS = dict(
    loss_scene='scene-scene loss',
    projection_std='spread of the projections',
    plan_entropy='entropy of the plan')


def read_results(folder: Union[str, Path]) -> dict:
    """Read all results of a folder.

    Returns:
        dict: ``{'METHOD' or 'METHOD-NAME': {seed: result}}``.

    Raises:
        FileNotFoundError: The folder has no results.
    """
    results = defaultdict(dict)
    for path in sorted(Path(folder).glob('*-seed*.json')):
        result = read_result(path)
        label = result['method']
        if result['name']:
            label += f'-{result["name"]}'
        results[label][result['seed']] = result
    if not results:
        raise FileNotFoundError(
            f"'{folder}' has no results: give another --results, or "
            'make results with the command run or sweep')
    return results


def read_result(path: Path) -> dict:
    """Read a result."""
    result = json.loads(path.read_text())
    if 'arm' in result:  # the key of earlier results
        result['method'] = result.pop('arm')
    return result


def markdown_table(head: Iterable[str], rows: Iterable[Iterable]) -> str:
    """Return a table in Markdown."""
    head = list(head)
    lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    return '\n'.join(
        lines + [f'| {" | ".join(map(str, row))} |' for row in rows])


def interval(differences: np.ndarray) -> Optional[tuple]:
    """Compute the mean and the 95 % confidence interval by Student's t.

    Returns:
        tuple or None: Mean, lower and upper bound; None for fewer than two
        differences.
    """
    from scipy.stats import t
    if len(differences) < 2:
        return None
    mean = differences.mean()
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    half = t.ppf(0.975, len(differences) - 1) * error
    return mean, mean - half, mean + half


def bootstrap(differences: np.ndarray) -> Optional[tuple]:
    """Compute the mean and its 95 % interval by a bootstrap of the seeds.

    The interval has the percentiles of 10,000 means of resampled differences.

    Returns:
        tuple or None: As :func:`interval`.
    """
    from scipy import stats
    if len(differences) < 2:
        return None
    found = stats.bootstrap(
        (differences, ), np.mean, n_resamples=10_000, method='percentile',
        rng=np.random.default_rng(0)).confidence_interval
    return differences.mean(), found.low, found.high


def effects(levels: np.ndarray, values: np.ndarray) -> tuple:
    """Estimate the effect of each factor by least squares.

    Args:
        levels (np.ndarray): (runs, factors) of -1 and 1.
        values (np.ndarray): (runs,).

    Returns:
        tuple: (factors,) effects, from the low to the high level, and
        (factors,) half-widths of their 95 % confidence intervals.

    Raises:
        ValueError: There are too few runs.
    """
    from scipy.stats import t
    terms = np.column_stack([np.ones(len(values)), levels])
    solution, _, rank, _ = np.linalg.lstsq(terms, values, rcond=None)
    free = len(values) - terms.shape[1]
    if free < 1 or rank < terms.shape[1]:
        raise ValueError(f'{len(values)} runs are too few to estimate '
                         f'{levels.shape[1]} effects and their intervals')
    residual = values - terms @ solution
    errors = np.sqrt(np.diag(np.linalg.inv(terms.T @ terms))
                     * (residual @ residual) / free)
    return 2 * solution[1:], 2 * t.ppf(0.975, free) * errors[1:]


def report(results: dict, baseline: Optional[str] = None,
           interval_of: Callable = interval) -> str:
    """Return all tables: scores, differences, effects of terms, features.

    The arguments are those of :func:`difference_table`.
    """
    tables = (score_table(results),
              difference_table(results, baseline, interval_of),
              term_table(results), feature_table(results))
    return '\n\n'.join(filter(None, tables))


def sort_labels(results: dict) -> list[str]:
    """Sort the labels of results by name, then in the paper's order."""
    def key(label: str) -> tuple:
        method, _, name = label.partition('-')
        return name, list(METHODS).index(method)
    return sorted(results, key=key)


def score_table(results: dict) -> str:
    """Return means and standard deviations over the seeds."""
    rows = []
    for label in sort_labels(results):
        runs = results[label].values()
        cells = [mean_and_spread([x[key] for x in runs if key in x], 1)
                 for key in MEASURES]
        rows.append([METHODS.get(label, label), len(runs), *cells])
    return markdown_table(['method', 'seeds', *MEASURES.values()], rows)


def difference_table(results: dict, baseline: Optional[str] = None,
                     interval_of: Callable = interval) -> str:
    """Return differences from the runs of a baseline with the same seed.

    Empty if no method shares two seeds with the baseline.

    Args:
        results (dict): Results, from :func:`read_results`.
        baseline (str, optional): Label of the baseline. Defaults to None:
            BYOL of the same name.
        interval_of (Callable): :func:`interval` or :func:`bootstrap`.
    """
    rows = []
    for label in sort_labels(results):
        _, dash, name = label.partition('-')
        base = baseline or f'byol{dash}{name}'
        others = results.get(base, {})
        seeds = sorted(results[label].keys() & others.keys())
        if label == base or len(seeds) < 2:
            continue
        cells = []
        for key in MEASURES:
            found = interval_of(np.array([
                results[label][s][key] - others[s][key] for s in seeds
                if key in results[label][s] and key in others[s]]))
            cells.append('–' if found is None else
                         '{:+.1f} [{:+.1f}, {:+.1f}]'.format(*found))
        rows.append([METHODS.get(label, label), len(seeds), *cells])
    title = METHODS.get(baseline or 'byol', baseline)
    head = [f'minus {title}, same seed', 'seeds', *MEASURES.values()]
    return markdown_table(head, rows) if rows else ''


def feature_table(results: dict) -> str:
    """Return what is known of the features besides their scores.

    Means and standard deviations over the seeds: the effective rank, and the
    logged values of the last epoch. Empty if no result has a rank.
    """
    rows = []
    for label in sort_labels(results):
        runs = [x for x in results[label].values() if 'rank' in x]
        if not runs:
            continue
        cells = [mean_and_spread([x['rank'] for x in runs], 1)]
        for key in ('projection_std', 'plan_entropy'):
            cells.append(mean_and_spread(
                [x['curve'][-1][key] for x in runs
                 if x['curve'] and key in x['curve'][-1]], 2))
        rows.append([METHODS.get(label, label), len(runs), *cells])
    head = ['features', 'seeds', 'effective rank',
            INDICATORS['projection_std'], INDICATORS['plan_entropy']]
    return markdown_table(head, rows) if rows else ''


def mean_and_spread(values: Iterable[float], digits: int) -> str:
    """Return 'mean ± standard deviation', or '–' without values."""
    values = np.array(list(values))
    if not len(values):
        return '–'
    spread = f' ± {values.std(ddof=1):.{digits}f}' if len(values) > 1 else ''
    return f'{values.mean():.{digits}f}{spread}'


def term_table(results: dict) -> str:
    """Return the effects of UniVIP's two instance terms, within seeds.

    Each effect averages over the runs with and without the other term. Empty
    if a method is missing.
    """
    if any(method not in results for method in TERMS):
        return ''
    rows: list = [['scene-instance'], ['instance-instance']]
    number = 0
    for key in MEASURES:
        runs = [(signs, seed, run[key]) for method, signs in TERMS.items()
                for seed, run in results[method].items() if key in run]
        number = max(number, len(runs))
        seeds = sorted({seed for _, seed, _ in runs})
        # Seeds are factors too, so that they do not count as noise.
        levels = np.array([[*signs, *(seed == other for other in seeds[1:])]
                           for signs, seed, _ in runs])
        try:
            found = effects(levels, np.array([x for *_, x in runs]))
        except ValueError:  # too few runs
            found = [[math.nan] * 2] * 2
        for row, effect, half in zip(rows, *found):
            row.append('–' if math.isnan(effect) else
                       f'{effect:+.1f} ± {half:.1f}')
    return markdown_table(
        [f'term, over {number} runs', *MEASURES.values()], rows)


def indicator_table(results: dict) -> str:
    """Return correlations of the last epoch's log with the scores.

    Spearman's rank correlation and its p-value over the runs of UniVIP,
    after subtracting the mean of each method.

    Raises:
        ValueError: There are fewer than four runs of UniVIP.
    """
    from scipy.stats import spearmanr
    runs = [run for seeds in results.values() for run in seeds.values()
            if run['curve'] and run['curve'][-1].keys() >= INDICATORS.keys()]
    if len(runs) < 4:
        raise ValueError(f'only {len(runs)} runs of UniVIP: give --results a '
                         'folder that has at least four')
    methods = np.array([run['method'] for run in runs])

    def within_methods(values: list) -> np.ndarray:
        values = np.array(values)
        means = [values[methods == method].mean() for method in methods]
        return (values - means).round(9)  # so that equal values stay equal

    scores = {key: within_methods([run[key] for run in runs])
              for key in MEASURES if all(key in run for run in runs)}
    rows = []
    for name, title in INDICATORS.items():
        logged = within_methods([run['curve'][-1][name] for run in runs])
        found = [spearmanr(logged, values) for values in scores.values()]
        rows.append([title, *(f'{rho:+.2f} (p {p:.3f})' for rho, p in found)])
    return markdown_table(
        [f'{len(runs)} runs', *(MEASURES[key] for key in scores)], rows)
