"""Sweep of all settings at once, by a fractional factorial design.

Each run has its own seed and a low or a high value of every setting (columns
of a Hadamard matrix). The effect of a setting is the mean of the runs with
its high value minus the mean of the others, so each effect uses all runs.
Seeds differ more than most settings do: one run for each value would show
the seeds. With all runs, effects of single settings are not confounded with
each other or with effects of pairs.
"""
from typing import NamedTuple

import numpy as np

from .report import effects, markdown_table, read_result
from .settings import MEASURES, Experiment, Run


class Factor(NamedTuple):
    """A setting, two values of it, and its keys in the config.

    Without keys, the values are methods.
    """
    title: str
    low: str
    high: str
    keys: tuple[str, ...] = ()


LEARNING_RATE = ('optim_wrapper.optimizer.lr', )
MOMENTUM = Factor('EMA, base_momentum', '0.0015', '0.006',
                  ('model.base_momentum', ))
# For each study the number of runs, and its factors by their column of a
# Hadamard matrix: single bits, and sums of three of them (resolution IV).
STUDIES = dict(
    univip=(16, {
        1: Factor('learning rate', '0.1', '0.3', LEARNING_RATE),
        2: MOMENTUM,
        4: Factor('epsilon', '0.02', '0.1',
                  ('model.instance_loss.epsilon', )),
        8: Factor('weight of scene-instance', '0.25', '1.0',
                  ('model.loss_weights.scene_instance', )),
        7: Factor('weight of instance-instance', '0.5', '2.0',
                  ('model.loss_weights.instance', )),
        11: Factor('K', '2', '4',
                   ('model.fusion_neck.num_instances',
                    'train_dataloader.dataset.pipeline.1.num_instances')),
        13: Factor('instances, pixels', '32', '48',
                   ('train_dataloader.dataset.pipeline.1.instance_size', )),
        14: Factor('views of an instance', '1', '2',
                   ('model.data_preprocessor.instance_views', )),
    }),
    byol=(8, {
        1: Factor('learning rate', '0.1', '0.3', LEARNING_RATE),
        2: MOMENTUM,
        4: Factor('scenes', 'byol', 'byol_overlap'),
    }))


def design(study: str) -> np.ndarray:
    """Return the levels, (runs, factors): -1 is low, 1 is high."""
    from scipy.linalg import hadamard
    number, factors = STUDIES[study]
    return -hadamard(number)[:, list(factors)]


def sweep_runs(study: str, first_seed: int = 101) -> list[Run]:
    """Return the runs of a study, each with a seed of its own."""
    runs = []
    for number, levels in enumerate(design(study)):
        method, options = study, []
        for factor, level in zip(STUDIES[study][1].values(), levels):
            value = factor.low if level < 0 else factor.high
            if factor.keys:
                options += [f'{key}={value}' for key in factor.keys]
            else:
                method = value
        runs.append(Run(method, first_seed + number, f'sweep{number:02d}',
                        tuple(options)))
    return runs


def find_results(experiment: Experiment, runs: list[Run]) -> dict[Run, dict]:
    """Return the results of the finished runs.

    Raises:
        ValueError: A result has other settings than its run, or than the
            other results.
    """
    results = {}
    for run in runs:
        path = experiment.result_path(run)
        if not path.is_file():
            continue
        results[run] = result = read_result(path)
        first = next(iter(results.values()))
        if (result['options'] != list(run.options)
                or any(result[key] != first[key]
                       for key in ('epochs', 'bf16', 'num_train'))):
            raise ValueError(f"'{path}' has other settings than the sweep: "
                             'give another --results, or delete it')
    return results


def sweep_table(study: str, runs: list[Run], results: dict[Run, dict]) -> str:
    """Return the effects of each setting on each measure.

    Args:
        study (str): One of ``STUDIES``.
        runs (list[Run]): All runs, by :func:`sweep_runs`.
        results (dict): The results of the finished runs, in the same order.
    """
    levels = design(study)[[run in results for run in runs]]
    measures = {key: title for key, title in MEASURES.items()
                if all(key in result for result in results.values())}
    columns = [
        [f'{effect:+.1f} ± {half:.1f}' for effect, half in zip(*effects(
            levels, np.array([x[key] for x in results.values()])))]
        for key in measures]
    progress = f'{len(results)} of {len(runs)} runs'
    if len(results) < len(runs):
        progress += '; effects are confounded with those of pairs until all ' \
            'runs are finished'
    rows = [[factor.title, f'{factor.low} → {factor.high}', *cells]
            for factor, *cells in zip(STUDIES[study][1].values(), *columns)]
    table = markdown_table(['setting', 'values', *measures.values()], rows)
    return f'{progress}\n\n{table}'
