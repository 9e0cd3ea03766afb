"""The tables of docs/results.md are those of the results beside it."""
import sys

import pytest
from tiny import ROOT, load_tool

quality_report = load_tool('benchmarks/quality_report')
sweep = load_tool('benchmarks/quality_sweep')
PAGE = (ROOT / 'docs/results.md').read_text()
RESULTS = ROOT / 'docs/results'
FOLDERS = sorted({x.parent for x in RESULTS.rglob('*.json')})


@pytest.mark.parametrize(
    'folder', [x for x in FOLDERS if x.name != 'factorial'],
    ids=lambda x: x.name)
def test_tables_are_those_of_the_results(folder):
    results = quality_report.read_results(folder)
    assert_lines_are_there(quality_report.report(results))


@pytest.mark.parametrize('study', sweep.STUDIES)
def test_effects_are_those_of_the_runs(study, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [
        'quality_sweep.py', study, '--report', '--results',
        str(RESULTS / 'factorial')])
    assert_lines_are_there(sweep.report(sweep.parse_args()))


@pytest.mark.parametrize('folder', [RESULTS, RESULTS / 'factorial'])
def test_correlations_are_those_of_the_runs(folder):
    assert_lines_are_there(
        quality_report.indicators(quality_report.read_results(folder)))


def assert_lines_are_there(table):
    assert not [x for x in table.splitlines() if x not in PAGE]
