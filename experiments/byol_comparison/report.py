"""The results of quality.py as tables and as a picture."""
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Optional

import numpy as np

# From least to most; the paper's order.
ARMS = dict(
    random='random initialisation',
    byol='BYOL',
    byol_overlap='BYOL, overlap scenes',
    scene_instance='+ scene-instance',
    instance_instance='+ instance-instance',
    univip='UniVIP (both)',
    univip_random_boxes='UniVIP, random boxes',
    supervised='supervised')
MEASURES = dict(
    linear_mAP='linear mAP, images',
    object_linear='linear, objects',
    object_knn='k-NN, objects',
    box_AP50='detection AP50')


def read_results(folder: Path) -> dict:
    """Arm, with its name, to seed to result."""
    results = defaultdict(dict)
    for path in sorted(folder.glob('*-seed*.json')):
        result = json.loads(path.read_text())
        arm = result['arm'] + (f'-{result["name"]}' if result['name'] else '')
        results[arm][result['seed']] = result
    return results


def interval(differences: np.ndarray) -> Optional[tuple]:
    """Mean of paired differences and its 95 % confidence interval, by
    Student's t; None where there are fewer than two."""
    from scipy.stats import t
    if len(differences) < 2:
        return None
    mean = differences.mean()
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    half = t.ppf(0.975, len(differences) - 1) * error
    return mean, mean - half, mean + half


def effects(levels: np.ndarray, values: np.ndarray) -> tuple:
    """By least squares: the effect of each factor, from its low value to its
    high one, and half the width of its 95 % confidence interval.

    Args:
        levels (np.ndarray): (runs, factors) of -1 and 1.
        values (np.ndarray): (runs,).
    """
    from scipy.stats import t
    terms = np.column_stack([np.ones(len(values)), levels])
    solution, _, rank, _ = np.linalg.lstsq(terms, values, rcond=None)
    free = len(values) - terms.shape[1]
    if free < 1 or rank < terms.shape[1]:
        raise ValueError(f'{len(values)} runs are too few to tell '
                         f'{levels.shape[1]} effects from chance')
    rest = values - terms @ solution
    errors = np.sqrt(np.diag(np.linalg.inv(terms.T @ terms))
                     * (rest @ rest) / free)
    return 2 * solution[1:], 2 * t.ppf(0.975, free) * errors[1:]


def in_order(results: dict) -> list:
    """The arms in the paper's order, and then those of other names, name by
    name in the same order."""
    def place(arm: str) -> tuple:
        base, _, name = arm.partition('-')
        return name, list(ARMS).index(base)
    return sorted(results, key=place)


def report(results: dict) -> str:
    """The tables, as Markdown: means and standard deviations over the seeds,
    paired differences from BYOL of the same name, and what each term
    does."""
    order = in_order(results)
    head = ' | '.join(MEASURES.values())
    lines = [f'| arm | seeds | {head} |', '|---' * (2 + len(MEASURES)) + '|']
    for arm in order:
        runs = list(results[arm].values())
        cells = []
        for key in MEASURES:
            values = np.array([x[key] for x in runs if key in x])
            if not len(values):
                cells.append('–')
                continue
            spread = (f' ± {values.std(ddof=1):.1f}' if len(values) > 1
                      else '')
            cells.append(f'{values.mean():.1f}{spread}')
        lines.append(f'| {ARMS.get(arm, arm)} | {len(runs)} | '
                     f'{" | ".join(cells)} |')
    paired = []
    for arm in order:
        base, dash, name = arm.partition('-')
        byol = results.get(f'byol{dash}{name}', {})
        seeds = sorted(results[arm].keys() & byol.keys())
        if base == 'byol' or len(seeds) < 2:
            continue
        cells = []
        for key in MEASURES:
            found = interval(np.array([
                results[arm][s][key] - byol[s][key]
                for s in seeds if key in results[arm][s] and key in byol[s]]))
            cells.append('–' if found is None else
                         '{:+.1f} [{:+.1f}, {:+.1f}]'.format(*found))
        paired.append(f'| {ARMS.get(arm, arm)} | {len(seeds)} | '
                      f'{" | ".join(cells)} |')
    if paired:
        lines += ['', f'| less BYOL, same seed | seeds | {head} |',
                  '|---' * (2 + len(MEASURES)) + '|', *paired]
    terms = term_effects(results)
    if terms:
        lines += ['', terms]
    return '\n'.join(lines)


# With the overlap scenes, what each arm has of the two other terms.
TERMS = dict(
    byol_overlap=(-1, -1), scene_instance=(1, -1), instance_instance=(-1, 1),
    univip=(1, 1))


def term_effects(results: dict) -> str:
    """What the scene-instance and the instance-instance term do, each with
    and without the other, within seeds, as a table in Markdown; empty where
    an arm is not there."""
    if any(arm not in results for arm in TERMS):
        return ''
    rows: list = [['scene-instance'], ['instance-instance']]
    number = 0
    for key in MEASURES:
        runs = [(levels, seed, run[key]) for arm, levels in TERMS.items()
                for seed, run in results[arm].items() if key in run]
        number = max(number, len(runs))
        seeds = sorted({seed for _, seed, _ in runs})
        levels = np.array([
            [*levels, *(seed == other for other in seeds[1:])]
            for levels, seed, _ in runs])
        try:
            found = effects(levels, np.array([x for *_, x in runs]))
        except ValueError:  # too few runs
            found = [[math.nan] * 2] * 2
        for row, x, half in zip(rows, *found):
            row.append('–' if math.isnan(x) else f'{x:+.1f} ± {half:.1f}')
    return '\n'.join([
        f'| term, over {number} runs | {" | ".join(MEASURES.values())} |',
        '|---' * (1 + len(MEASURES)) + '|',
        *(f'| {" | ".join(row)} |' for row in rows)])


# Of the training's log, what may tell a good run from a bad one.
INDICATORS = dict(
    loss_scene='scene-scene loss',
    projection_std='spread of the projections',
    plan_entropy='entropy of the plan')


def indicators(results: dict) -> str:
    """How the last epoch's log goes with what was measured, over the runs of
    UniVIP, each less the mean of its arm, as a table in Markdown: Spearman's
    rank correlation and its p-value.

    Raises:
        ValueError: There are fewer than four such runs.
    """
    from scipy.stats import spearmanr
    runs = [run for seeds in results.values() for run in seeds.values()
            if run['curve'] and run['curve'][-1].keys() >= INDICATORS.keys()]
    if len(runs) < 4:
        raise ValueError(f'only {len(runs)} runs of UniVIP: give --results a '
                         'folder that has at least four')
    arms = np.array([run['arm'] for run in runs])

    def within_arms(values: list) -> np.ndarray:
        values = np.array(values)
        means = [values[arms == arm].mean() for arm in arms]
        return (values - means).round(9)  # so that equals stay equal

    measures = {key: within_arms([run[key] for run in runs])
                for key in MEASURES if all(key in run for run in runs)}
    lines = [f'| {len(runs)} runs | '
             f'{" | ".join(MEASURES[key] for key in measures)} |',
             '|---' * (1 + len(measures)) + '|']
    for name, title in INDICATORS.items():
        logged = within_arms([run['curve'][-1][name] for run in runs])
        cells = [f'{rho:+.2f} (p {p:.3f})' for rho, p in (
            spearmanr(logged, values) for values in measures.values())]
        lines.append(f'| {title} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def plot(results: dict, path: str) -> None:
    """Every seed of every arm, and how well the scenes agreed in training."""
    from matplotlib.figure import Figure
    shown = [arm for arm in in_order(results) if arm != 'supervised']
    figure = Figure(figsize=(17, 4.6), layout='constrained')
    panels = figure.subplots(1, len(MEASURES) + 1,
                             width_ratios=[1] * len(MEASURES) + [1.4])
    for panel, (key, title) in zip(panels, MEASURES.items()):
        for place, arm in enumerate(shown):
            values = [run[key] for run in results[arm].values()
                      if key in run]
            panel.plot(values, [place] * len(values), 'o', color='C0',
                       alpha=0.6)
            if values:
                panel.plot(np.mean(values), place, '|', color='C1', ms=22,
                           mew=3)
        panel.set_title(f'{title}, percent')
        panel.set_yticks(range(len(shown)),
                         [ARMS.get(arm, arm) for arm in shown])
        panel.invert_yaxis()
        panel.grid(alpha=0.3)
        if panel is not panels[0]:
            panel.set_yticklabels([])
    for arm in shown:
        curves = [scene_loss(run) for run in results[arm].values()
                  if run['curve']]
        if curves:
            length = min(map(len, curves))
            mean = np.mean([curve[:length] for curve in curves], axis=0)
            panels[-1].plot(range(1, length + 1), mean,
                            label=ARMS.get(arm, arm))
    panels[-1].set_title('scene-scene loss over the epochs')
    if panels[-1].lines:
        panels[-1].legend(fontsize='small')
    panels[-1].grid(alpha=0.3)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def scene_loss(run: dict) -> list:
    """Of each epoch, from 2 to -2; the host's BYOL states its double."""
    return [x['loss_scene'] if 'loss_scene' in x else x['loss'] / 2
            for x in run['curve']]
