import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOW = [
    f'univip_mm.{path.parent.name}.{path.stem}'
    for folder in ('io', 'proposals')
    for path in sorted((ROOT / 'univip_mm' / folder).glob('[!_]*.py'))
]


@pytest.mark.parametrize('modules', [
    LOW, ['univip_mm.utils.distributed', 'univip_mm.utils.parallel',
          'univip_mm.utils.progress']], ids=['io, proposals', 'utils'])
def test_io_and_proposals_import_no_torch_and_no_host(modules):
    code = f'''
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
print(*{{name.split('.')[0] for name in sys.modules}})'''
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True,
        check=True, env={**os.environ, 'UNIVIP_HOST': 'none',
                         'PYTHONPATH': str(ROOT)})
    loaded = set(done.stdout.split())
    assert 'univip_mm' in loaded
    assert not loaded & {'torch', 'torchvision', 'mmengine', 'mmcv',
                         'mmpretrain', 'mmselfsup'}
