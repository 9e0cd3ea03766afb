import os
from importlib import metadata

import cv2
import pytest
import torch

from univip_mm.hosts import facts


@pytest.mark.parametrize('program, answer', [
    ('print("noise"); print("[1]")', [1]),
    ('raise ImportError("no\\nluck")', 'luck'),
    ('import os; os.kill(os.getpid(), 11)',
     'the process was ended by signal 11'),
    ('print("noise")', 'no readable answer'),
    ('pass', 'no readable answer'),
])
def test_run_program_returns_answer_or_error(program, answer):
    assert facts.run_program(program) == answer


def test_facts_agree_with_this_process():
    found = facts.find_versions()
    assert found['torch'] == metadata.version('torch')
    assert facts.find_opencv() == dict(version=cv2.__version__, search=True)
    seen = facts.find_torch()
    assert seen['version'] == torch.__version__
    assert len(seen['gpus']) == torch.cuda.device_count()
    machine = facts.find_machine()
    assert machine['files'] > 0 and machine['disk'] > 0
    assert machine['memory'] <= os.sysconf('SC_PAGE_SIZE') * os.sysconf(
        'SC_PHYS_PAGES')
