"""Metadata for MIM, modelindex and GitHub."""
import re
import subprocess
import sys
from pathlib import Path

import modelindex
import pytest
import yaml
from mmengine.config import Config
from tiny import CONFIGS, ROOT

from univip_mm.version import __version__

METAFILES = sorted(CONFIGS.rglob('metafile.yml'))


def entries():
    return [model for path in METAFILES
            for model in yaml.safe_load(path.read_text())['Models']]


def test_model_index_imports_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert {ROOT / path for path in index['Import']} == set(METAFILES)


def test_metafiles_have_one_entry_per_config():
    configs = {
        str(path.relative_to(ROOT)) for path in CONFIGS.rglob('*.py')
        if '_base_' not in path.parts
    }
    assert sorted(x['Config'] for x in entries()) == sorted(configs)
    for entry in entries():
        assert entry['Name'] == Path(entry['Config']).stem


def test_modelindex_reads_all_entries():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert {x.name for x in index.models} == {
        x['Name'] for x in entries()}


@pytest.mark.parametrize('name', [
    x['Name'] for x in entries() if 'benchmarks' not in x['Config']])
def test_entries_agree_with_the_configs(name):
    entry = next(x for x in entries() if x['Name'] == name)
    config = Config.fromfile(ROOT / entry['Config'])
    assert entry['Metadata']['Epochs'] == config.train_cfg.max_epochs
    assert (entry['Metadata']['Batch Size'] ==
            config.auto_scale_lr.base_batch_size)


def test_entries_claim_no_unmeasured_result():
    for entry in entries():
        assert entry['Results'] is None and 'Weights' not in entry


def test_citation_has_the_current_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__
    assert f'## {__version__}' in (ROOT / 'CHANGELOG.md').read_text()


def test_pre_commit_ruff_version():
    pinned = re.search(
        r'^ruff==.*$', (ROOT / 'requirements/constraints.txt').read_text(),
        re.MULTILINE)[0]
    hook = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())[
        'repos'][0]['hooks'][0]
    assert hook['additional_dependencies'] == [pinned]


def test_mypy_passes():
    said = subprocess.run([sys.executable, '-m', 'mypy'], cwd=ROOT,
                          capture_output=True, text=True)
    assert said.returncode == 0, said.stdout
