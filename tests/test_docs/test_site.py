import subprocess
import sys

from tiny import ROOT


def test_site_is_built_without_a_warning(tmp_path):
    said = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-d',
         tmp_path / 'doctrees', '-b', 'html', ROOT / 'docs', tmp_path / 'out'],
        capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    page = (tmp_path / 'out/api.html').read_text()
    for name in ('UniVIP', 'SinkhornOTLoss', 'OverlapSceneCrop',
                 'ProposalCocoDataset', 'generate_proposals'):
        assert name in page


def test_every_page_is_in_the_index():
    index = (ROOT / 'docs/index.md').read_text().splitlines()
    for page in (ROOT / 'docs').glob('*.md'):
        assert page.stem == 'index' or page.stem in index
