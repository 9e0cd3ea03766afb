"""Where both hosts are installed: MMSelfSup's environment, to which
`make test-hosts` adds a folder that holds MMPretrain."""
import sys
from pathlib import Path

import pytest
from project import run


@pytest.mark.parametrize('wanted, taken', [
    (None, 'mmpretrain'), ('mmpretrain', 'mmpretrain'),
    ('mmselfsup', 'mmselfsup')])
def test_of_two_hosts_the_newer_or_the_named_one_is_taken(
        tmp_path, wanted, taken):
    variables = dict(UNIVIP_HOST=wanted) if wanted else {}
    said = run(
        tmp_path, sys.executable, '-W', 'ignore', '-c',
        'import univip_mm.registry as r; print(r.HOST, r.MODELS.get("BYOL")'
        '.__module__.split(".")[0])',
        PYTHONPATH=str(Path(sys.prefix) / 'mmpretrain'), **variables)
    assert said.splitlines()[-1] == f'{taken} {taken}'
