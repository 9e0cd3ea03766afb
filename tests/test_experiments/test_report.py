import json

import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.stats import ttest_1samp, ttest_ind

from experiments.byol_comparison import report


def test_interval_matches_scipy():
    differences = np.random.default_rng(0).normal(2, 1, 4)
    low, high = ttest_1samp(differences, 0).confidence_interval(0.95)
    assert report.interval(differences) == pytest.approx(
        (differences.mean(), low, high))
    assert report.interval(differences[:1]) is None


def test_report_pairs_the_seeds():
    def runs(**values):
        return {int(seed[1:]): dict.fromkeys(report.MEASURES, x)
                for seed, x in values.items()}
    table = report.report(dict(
        byol=runs(s1=20.0, s2=30.0), univip=runs(s1=21.0, s2=33.0, s3=99.0)))
    assert '| BYOL | 2 | 25.0 ± 7.1 |' in table
    # Seed 3 has no BYOL, so it is not compared.
    assert '| UniVIP (both) | 2 | +2.0 [-10.7, +14.7] |' in table


def test_sort_labels_by_name_and_paper_order():
    names = ['univip-lr0.4', 'univip', 'random', 'byol-lr0.4', 'byol',
             'univip-a-b']
    assert report.sort_labels(dict.fromkeys(names)) == [
        'random', 'byol', 'univip', 'univip-a-b', 'byol-lr0.4',
        'univip-lr0.4']


def test_report_compares_runs_of_the_same_name():
    def runs(*values):
        return {seed: dict.fromkeys(report.MEASURES, x)
                for seed, x in enumerate(values)}
    table = report.report({
        'byol': runs(0.0, 0.0), 'byol-a-b': runs(20.0, 30.0),
        'univip-a-b': runs(21.0, 33.0), 'univip-c': runs(50.0, 50.0)})
    differences = table.split('minus BYOL')[1]
    assert '| univip-a-b | 2 | +2.0 [-10.7, +14.7] |' in differences
    assert 'univip-c' not in differences


def test_bootstrap_is_that_of_resampled_means():
    differences = np.random.default_rng(0).normal(2, 1, 8)
    rng = np.random.default_rng(1)
    means = rng.choice(differences, (20_000, 8)).mean(1)
    wanted = differences.mean(), *np.percentile(means, [2.5, 97.5])
    assert report.bootstrap(differences) == pytest.approx(wanted, abs=0.03)
    assert report.bootstrap(differences[:1]) is None


def test_report_compares_with_a_baseline():
    def runs(*values):
        return {seed: dict.fromkeys(report.MEASURES, x)
                for seed, x in enumerate(values)}
    table = report.report({
        'univip': runs(20.0, 30.0), 'univip-views2': runs(21.0, 33.0),
        'byol': runs(0.0, 0.0)}, baseline='univip')
    assert '| minus UniVIP (both), same seed |' in table
    assert '| univip-views2 | 2 | +2.0 [-10.7, +14.7] |' in table


def test_report_shows_the_features():
    curve = [dict(projection_std=0.5), dict(projection_std=0.75)]
    runs = {seed: dict(rank=rank, curve=curve)
            for seed, rank in ((1, 2.0), (2, 4.0))}
    table = report.report(dict(byol=runs))
    assert '| BYOL | 2 | 3.0 ± 1.4 | 0.75 ± 0.00 | – |' in table


def test_report_marks_missing_measures():
    table = report.report(dict(
        byol={1: dict.fromkeys(report.MEASURES, 20.0)},
        univip={1: dict(linear_mAP=21.0, object_linear=22.0,
                        object_knn=23.0)}))
    assert '| UniVIP (both) | 1 | 21.0 | 22.0 | 23.0 | – |' in table


def logged(spread, method='univip', **values):
    last = dict(loss_scene=-1.0 - spread, projection_std=spread,
                plan_entropy=spread**2)
    return dict(method=method, curve=[dict(loss_scene=0), last], **values)


def test_indicators_are_rank_correlations():
    spreads = [0.5, 0.6, 0.7, 0.9]
    runs = {i: logged(x, linear_mAP=x**3, object_linear=-x)
            for i, x in enumerate(spreads)}
    byol = dict(curve=[dict(loss=1)], linear_mAP=9.0, object_linear=9.0)
    lines = report.indicator_table(
        dict(univip=runs, byol={1: byol}, random={1: dict(curve=[])}
             )).splitlines()
    assert lines[0] == '| 4 runs | linear mAP, images | linear, objects |'
    by_name = {line.split(' | ')[0]: line for line in lines}
    assert '+1.00 (p 0.000) | -1.00' in by_name['| spread of the projections']
    assert '-1.00 (p 0.000) | +1.00' in by_name['| scene-scene loss']
    # Differences between methods do not count.
    others = {i: logged(x, method='scene_instance', linear_mAP=x**3 - 9,
                        object_linear=-x - 9) for i, x in enumerate(spreads)}
    table = report.indicator_table(dict(univip=runs, scene_instance=others))
    assert '| spread of the projections | +1.00 (p 0.000) | -1.00' in table
    with pytest.raises(ValueError, match='only 3 runs of UniVIP'):
        report.indicator_table(dict(univip={i: runs[i] for i in range(3)}))


def test_effects_of_one_factor_match_t_test():
    rng = np.random.default_rng(0)
    low, high = rng.normal(20, 2, 5), rng.normal(23, 2, 7)
    levels = np.repeat([-1, 1], [5, 7])[:, None]
    effect, half = report.effects(levels, np.concatenate([low, high]))
    wanted = ttest_ind(high, low).confidence_interval(0.95)
    assert effect[0] - half[0] == pytest.approx(wanted.low)
    assert effect[0] + half[0] == pytest.approx(wanted.high)


def test_effects_of_incomplete_runs():
    levels = -hadamard(16)[:, [1, 2, 4, 8, 7, 11, 13, 14]]
    planted = np.array([1.5, -2, 0, 0, 4, 0.5, -0.25, 0])
    values = 30 + levels @ planted / 2
    there = np.r_[0:3, 4:11, 12:16]
    effect, half = report.effects(levels[there], values[there])
    assert effect == pytest.approx(planted)
    assert half == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match='too few'):
        report.effects(levels[:8], values[:8])


def test_term_effects_average_over_the_other_term():
    def runs(value):
        return {seed: dict.fromkeys(report.MEASURES, value + 0.1 * seed)
                for seed in (-1, 1)}
    results = dict(byol_overlap=runs(20), scene_instance=runs(17),
                   instance_instance=runs(22), univip=runs(19))
    lines = report.report(results).splitlines()
    assert lines[-4].startswith('| term, over 8 runs | ')
    assert lines[-2].startswith('| scene-instance | -3.0 ± 0.0 | ')
    assert lines[-1].startswith('| instance-instance | +2.0 ± 0.0 | ')
    # Differences between seeds and missing measures do not count.
    for method, shift in dict.fromkeys(results, 5.0).items():
        results[method][7] = {
            key: x + shift for key, x in results[method][1].items()
            if key != 'box_AP50'}
    lines = report.report(results).splitlines()
    assert lines[-4].startswith('| term, over 12 runs | ')
    assert lines[-2] == ('| scene-instance | -3.0 ± 0.0 | -3.0 ± 0.0 | '
                         '-3.0 ± 0.0 | -3.0 ± 0.0 |')
    del results['univip']
    assert 'term' not in report.report(results)


@pytest.mark.parametrize('key', ['method', 'arm'])
def test_read_results_groups_by_method_and_name(tmp_path, key):
    for seed in (2, 1):
        (tmp_path / f'univip-lr0.4-seed{seed}.json').write_text(json.dumps(
            {key: 'univip', 'name': 'lr0.4', 'seed': seed}))
    results = report.read_results(tmp_path)
    assert list(results) == ['univip-lr0.4']
    assert list(results['univip-lr0.4']) == [1, 2]
    assert results['univip-lr0.4'][1]['method'] == 'univip'
