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


def in_order(results: dict) -> list:
    """The arms in the paper's order, and then those of other names."""
    return sorted(results, key=lambda arm: (
        list(ARMS).index(arm) if arm in ARMS else len(ARMS)))


def report(results: dict) -> str:
    """The tables, as Markdown: means and standard deviations over the seeds,
    and paired differences from BYOL."""
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
        seeds = sorted(results[arm].keys() & results.get('byol', {}).keys())
        if arm == 'byol' or not seeds:
            continue
        cells = []
        for key in MEASURES:
            found = interval(np.array([
                results[arm][s][key] - results['byol'][s][key]
                for s in seeds if key in results[arm][s]
                and key in results['byol'][s]]))
            cells.append('–' if found is None else
                         '{:+.1f} [{:+.1f}, {:+.1f}]'.format(*found))
        paired.append(f'| {ARMS.get(arm, arm)} | {len(seeds)} | '
                      f'{" | ".join(cells)} |')
    if paired:
        lines += ['', f'| less BYOL, same seed | seeds | {head} |',
                  '|---' * (2 + len(MEASURES)) + '|', *paired]
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
