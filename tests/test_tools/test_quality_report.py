import numpy as np
import pytest
from scipy.stats import ttest_1samp
from tiny import load_tool

report = load_tool('benchmarks/quality_report')


def test_interval_is_that_of_student():
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
    # Seed 3 has no BYOL, and takes no part.
    assert '| UniVIP (both) | 2 | +2.0 [-10.7, +14.7] |' in table


def test_arms_are_in_the_paper_s_order_and_others_come_last():
    names = ['univip-lr0.4', 'univip', 'random', 'byol-lr0.4', 'byol']
    assert report.in_order(dict.fromkeys(names)) == [
        'random', 'byol', 'univip', 'univip-lr0.4', 'byol-lr0.4']


def test_a_measure_that_a_run_lacks_is_not_made_up():
    table = report.report(dict(
        byol={1: dict.fromkeys(report.MEASURES, 20.0)},
        univip={1: dict(linear_mAP=21.0, object_linear=22.0,
                        object_knn=23.0)}))
    assert '| UniVIP (both) | 1 | 21.0 | 22.0 | 23.0 | – |' in table
