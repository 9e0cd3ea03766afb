import os
import subprocess
import sys

import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner.priority import get_priority

from univip_mm.engine import SafeResumeHook

PROGRAM = '''
import sys
from mmengine.runner import CheckpointLoader
from univip_mm.engine import SafeResumeHook
def load(path):
    try:
        CheckpointLoader.load_checkpoint(path, 'cpu')
        return 'loaded'
    except Exception as e:
        return 'refused'
log, evil = sys.argv[1:]
SafeResumeHook().before_run(runner=None)
print(load(log), load(evil))
'''


class Payload:

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


def test_hook_loads_log_and_refuses_code(tmp_path):
    hub = MessageHub('log')
    hub.update_scalar('train/loss', 1.)
    torch.save(hub.state_dict(), tmp_path / 'log.pth')
    torch.save(Payload(tmp_path / 'canary'), tmp_path / 'evil.pth')
    # The hook changes the whole process, so use a new one.
    output = subprocess.run(
        [sys.executable, '-c', PROGRAM, tmp_path / 'log.pth',
         tmp_path / 'evil.pth'], text=True, capture_output=True,
        check=True).stdout.splitlines()[-1].split()
    assert output == ['loaded', 'refused']
    assert not (tmp_path / 'canary').exists()


def test_hook_removes_only_config():
    checkpoint = dict(
        meta=dict(config='print(1)', epoch=3), state_dict=dict(a=1))
    SafeResumeHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint == dict(meta=dict(epoch=3), state_dict=dict(a=1))


def test_hook_accepts_weights_without_meta():
    weights = dict(a=1)
    SafeResumeHook().after_load_checkpoint(None, weights)
    assert weights == dict(a=1)


def test_hook_runs_before_checkpoint_hook():
    assert get_priority(SafeResumeHook.priority) < get_priority(
        CheckpointHook.priority)
