import subprocess
import sys

import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner.priority import get_priority

from univip_mm.engine import SafeResumeHook

PROGRAM = '''
import sys, torch
from univip_mm.engine import SafeResumeHook
def load():
    try:
        torch.load(sys.argv[1], weights_only=True)
        return 'loaded'
    except Exception as e:
        return 'refused'
print(load())
SafeResumeHook().before_run(runner=None)
print(load())
'''


def test_a_log_is_loaded_once_the_hook_has_run(tmp_path):
    hub = MessageHub('log')
    hub.update_scalar('train/loss', 1.)
    torch.save(hub.state_dict(), tmp_path / 'x.pth')
    # What is admitted is so for the whole process: it takes a new one.
    said = subprocess.run(
        [sys.executable, '-c', PROGRAM, tmp_path / 'x.pth'], text=True,
        capture_output=True, check=True).stdout
    assert said.split() == ['refused', 'loaded']


def test_a_config_to_execute_is_taken_out_and_nothing_else():
    checkpoint = dict(
        meta=dict(config='print(1)', epoch=3), state_dict=dict(a=1))
    SafeResumeHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint == dict(meta=dict(epoch=3), state_dict=dict(a=1))


def test_weights_alone_have_no_meta():
    weights = dict(a=1)
    SafeResumeHook().after_load_checkpoint(None, weights)
    assert weights == dict(a=1)


def test_hook_comes_before_those_of_checkpoints():
    assert get_priority(SafeResumeHook.priority) < get_priority(
        CheckpointHook.priority)
