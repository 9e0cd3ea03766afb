"""The documentation site and the links of the Markdown files."""
import re
import subprocess
import sys

import pytest
from tiny import ROOT


def test_site_builds_without_warnings(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-d',
         tmp_path / 'doctrees', '-b', 'html', ROOT / 'docs', tmp_path / 'out'],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'out/api.html').read_text()
    for name in ('UniVIP', 'SinkhornOTLoss', 'OverlapSceneCrop',
                 'ProposalCocoDataset', 'generate_proposals'):
        assert name in page


def test_index_lists_every_page():
    index = (ROOT / 'docs/index.md').read_text().splitlines()
    for page in (ROOT / 'docs').glob('*.md'):
        assert page.stem == 'index' or page.stem in index


@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md',
                                  'CHANGELOG.md'])
def test_links_outside_the_site_resolve(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if target.startswith('https://'):
            continue
        path, _, anchor = target.partition('#')
        linked = ROOT / (path or page)
        assert linked.is_file(), target
        if anchor:
            assert anchor in anchors_of(linked.read_text()), target


def anchors_of(text: str) -> list:
    """Return the anchors of the headings, by GitHub's rule."""
    titles = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    return [re.sub(r'[^\w\- ]', '', title).lower().replace(' ', '-')
            for title in titles]
