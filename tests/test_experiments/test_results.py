"""The tables of the pages of results are those of the committed results."""
import pytest
from tiny import ROOT

from experiments.byol_comparison.report import (
    indicator_table,
    read_results,
    report,
)
from experiments.byol_comparison.settings import FOLDER, Experiment
from experiments.byol_comparison.sweep import (
    find_results,
    sweep_runs,
    sweep_table,
)

PAGE = ''.join((ROOT / f'docs/{x}.md').read_text()
               for x in ('results', 'results_appendix'))
RESULTS = FOLDER / 'results'
FOLDERS = sorted({x.parent for x in RESULTS.rglob('*.json')})


@pytest.mark.parametrize(
    'folder', [x for x in FOLDERS if x.name != 'factorial'],
    ids=lambda x: x.name)
def test_page_has_the_tables_of_the_results(folder):
    assert_page_has(report(read_results(folder)))


def test_page_has_the_effects_of_the_sweep():
    study = 'univip'  # BYOL's sweep had another scale of the loss
    runs = sweep_runs(study)
    experiment = Experiment(results=str(RESULTS / 'factorial'))
    assert_page_has(sweep_table(study, runs, find_results(experiment, runs)))


@pytest.mark.parametrize('folder', [RESULTS, RESULTS / 'factorial'])
def test_page_has_the_correlations(folder):
    assert_page_has(indicator_table(read_results(folder)))


def assert_page_has(table):
    assert not [x for x in table.splitlines() if x not in PAGE]
