import os
import subprocess
import sys

import pytest
from tiny import ROOT

LAUNCHER = '''
import subprocess, sys
subprocess.Popen([sys.executable, '-c', """
import time
from univip_mm.utils.processes import end_with_launcher
end_with_launcher()
print('started', flush=True)
time.sleep(1)
print('orphan', flush=True)
"""]).wait()
'''


@pytest.mark.parametrize('environ, expected', [
    (dict(TORCHELASTIC_RUN_ID='none'), ''), ({}, 'orphan\n')])
def test_end_with_launcher_leaves_no_orphan(environ, expected):
    kept = {k: v for k, v in os.environ.items() if 'TORCHELASTIC' not in k}
    launcher = subprocess.Popen(
        [sys.executable, '-c', LAUNCHER], text=True, stdout=subprocess.PIPE,
        env={**kept, **environ, 'PYTHONPATH': str(ROOT),
             'UNIVIP_HOST': 'none'})
    assert launcher.stdout.readline() == 'started\n'
    launcher.kill()
    launcher.wait()
    # The pipe ends with the last process that writes to it.
    assert launcher.stdout.read() == expected


def test_die_with_parent_exits_if_parent_is_gone():
    code = ('from univip_mm.utils.processes import die_with_parent\n'
            'import os\ndie_with_parent(os.getppid() + 1)\nprint("alive")')
    ended = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True,
        env={**os.environ, 'UNIVIP_HOST': 'none', 'PYTHONPATH': str(ROOT)})
    assert ended.returncode == 1 and ended.stdout == ''
