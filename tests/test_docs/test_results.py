"""The tables of docs/results.md are those of the results beside it."""
import pytest
from tiny import ROOT, load_tool

quality_report = load_tool('benchmarks/quality_report')
PAGE = (ROOT / 'docs/results.md').read_text()
FOLDERS = sorted({x.parent for x in (ROOT / 'docs/results').rglob('*.json')})


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda x: x.name)
def test_tables_are_those_of_the_results(folder):
    results = quality_report.read_results(folder)
    missing = [line for line in quality_report.report(results).splitlines()
               if line not in PAGE]
    assert not missing
