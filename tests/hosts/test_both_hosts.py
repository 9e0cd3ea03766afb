"""Both hosts installed: the environment of MMSelfSup, plus MMPretrain."""
import sys
from pathlib import Path

import pytest
from project import run


@pytest.mark.parametrize('wanted, host', [
    (None, 'mmpretrain'), ('mmpretrain', 'mmpretrain'),
    ('mmselfsup', 'mmselfsup')])
def test_registry_selects_host(
        tmp_path, wanted, host):
    variables = dict(UNIVIP_HOST=wanted) if wanted else {}
    said = run(
        tmp_path, sys.executable, '-W', 'ignore', '-c',
        'import univip_mm.registry as r; print(r.HOST, r.MODELS.get("BYOL")'
        '.__module__.split(".")[0])',
        PYTHONPATH=str(Path(sys.prefix) / 'mmpretrain'), **variables)
    assert said.splitlines()[-1] == f'{host} {host}'
