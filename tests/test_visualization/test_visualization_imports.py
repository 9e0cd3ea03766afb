import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_visualization_imports_neither_torch_nor_host():
    code = ('import sys, univip_mm.visualization; '
            'assert not {"torch", "mmengine", "mmpretrain", '
            '"matplotlib.pyplot"} & set(sys.modules)')
    environment = dict(os.environ, UNIVIP_HOST='none', PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, '-c', code], env=environment, check=True)
