import subprocess
import sys
import types
from pathlib import PurePath

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner.priority import get_priority
from payload import Payload
from tiny import run_tool, write_config

from univip_mm.engine import SafeResumeHook
from univip_mm.engine.checkpoint import load_checkpoint

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
SafeResumeHook()
print(load(log), load(evil))
'''


@pytest.fixture
def runner():
    """Return the parts of a Runner that the hook uses."""
    lines = []
    logger = types.SimpleNamespace(
        warning=lines.append, log=lambda level, text: lines.append(text))
    return types.SimpleNamespace(logger=logger, lines=lines)


@pytest.fixture
def hub():
    """Return a message hub with the values of a training."""
    hub = MessageHub('log')
    for value in (1., 2., 6.):
        hub.update_scalar('train/loss', value)
    hub.update_scalar('train/count', 3)
    hub.update_info('iter', 7)
    return hub


def stored(runner, hub, path, **meta):
    """Save a checkpoint as the Runner does; return it as plain PyTorch."""
    checkpoint = dict(state_dict={}, meta=dict(meta),
                      message_hub=hub.state_dict())
    SafeResumeHook().before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, path)
    return torch.load(path, weights_only=True)


def test_hook_loads_log_and_refuses_code(tmp_path, hub):
    torch.save(hub.state_dict(), tmp_path / 'log.pth')
    torch.save(Payload(tmp_path / 'canary'), tmp_path / 'evil.pth')
    # The hook changes the whole process, so use a new one.
    output = subprocess.run(
        [sys.executable, '-c', PROGRAM, tmp_path / 'log.pth',
         tmp_path / 'evil.pth'], text=True, capture_output=True,
        check=True).stdout.splitlines()[-1].split()
    assert output == ['loaded', 'refused']
    assert not (tmp_path / 'canary').exists()


def test_hook_stores_log_in_plain_types(tmp_path, runner, hub):
    content = stored(runner, hub, tmp_path / 'x.pth', epoch=3)
    assert content['meta'] == dict(epoch=3)
    assert content['message_hub']['runtime_info'] == dict(iter=7)
    assert not runner.lines
    SafeResumeHook().after_load_checkpoint(None, content)
    restored = MessageHub('restored')
    restored.load_state_dict(content['message_hub'])
    for name, buffer in hub.log_scalars.items():
        other = restored.log_scalars[name]
        assert type(other) is HistoryBuffer
        for a, b in zip(buffer.data, other.data):
            assert np.array_equal(a, b) and a.dtype == b.dtype
        assert other.max_length == buffer.max_length
    assert restored.log_scalars['train/loss'].mean() == 3
    assert restored.state_dict().keys() == hub.state_dict().keys()


def test_hook_keeps_checkpoints_for_stock_mmengine(tmp_path, runner, hub):
    content = stored(runner, hub, tmp_path / 'x.pth')
    restored = MessageHub('restored')
    restored.load_state_dict(content['message_hub'])
    assert restored.get_info('iter') == 7


def test_hook_converts_or_drops_other_values(tmp_path, runner, hub):
    values = dict(
        number=np.float32(0.5), flag=np.bool_(True), array=np.arange(3),
        nested=[(1, np.int64(2)), dict(a=None)], tensor=torch.ones(2))
    for name, value in values.items():
        hub.update_info(name, value)
    hub.update_info('lost', PurePath('a'))
    hub.update_info('partly', dict(lost={1}, kept=3))
    content = stored(runner, hub, tmp_path / 'x.pth',
                     dataset_meta=dict(classes=('a', ), lost=object))
    info = content['message_hub']['runtime_info']
    assert torch.equal(info.pop('tensor'), torch.ones(2))
    assert info == dict(
        iter=7, number=0.5, flag=True, array=[0, 1, 2],
        nested=[(1, 2), dict(a=None)], partly=dict(kept=3))
    assert type(info['number']) is float and type(info['flag']) is bool
    assert content['meta'] == dict(dataset_meta=dict(classes=('a', )))
    line, = runner.lines
    assert line.endswith(
        'message_hub.runtime_info.lost, message_hub.runtime_info.partly.lost, '
        'meta.dataset_meta.lost')


def test_hook_reports_dropped_values_once(runner):
    hook = SafeResumeHook()
    for _ in range(2):
        hook.before_save_checkpoint(runner, dict(meta=dict(a=object)))
    assert len(runner.lines) == 1


@pytest.mark.parametrize('plain', [
    dict(values=torch.ones(2), counts=torch.ones(1), max_length=5),
    dict(values=torch.ones(2), counts=torch.ones(2), max_length=1),
    dict(values=torch.ones(2), counts=[1, 1], max_length=5),
    dict(values=torch.ones(2, 1), counts=torch.ones(2, 1), max_length=5),
    dict(), None, 3])
def test_hook_leaves_wrong_histories(plain):
    content = dict(message_hub=dict(log_scalars=dict(a=plain)))
    SafeResumeHook().after_load_checkpoint(None, content)
    assert content['message_hub']['log_scalars']['a'] is plain


def test_hook_restores_log_after_resume(coco_folder):
    """The log of a resumed training is that of a training without a stop."""
    whole, parts = coco_folder / 'whole', coco_folder / 'parts'
    config = write_config(coco_folder)
    run_tool('train', config, '--work-dir', whole)
    for path in whole.glob('*.pth'):  # plain PyTorch, no other types
        torch.load(path, weights_only=True)
    run_tool('train', config, '--work-dir', parts, '--resume',
             whole / 'epoch_1.pth')
    a, b = (load_checkpoint(str(x / 'epoch_2.pth'))['message_hub'][
        'log_scalars'] for x in (whole, parts))
    for name in ('train/loss', 'train/lr', 'train/loss_scene'):
        assert len(a[name]['values']) == 8
        assert torch.equal(a[name]['values'], b[name]['values'])


def test_hook_warns_about_old_torch(runner, monkeypatch):
    SafeResumeHook().before_train(runner)
    assert not runner.lines
    monkeypatch.setattr(torch, '__version__', '2.4.1')
    SafeResumeHook().before_train(runner)
    line, = runner.lines
    assert 'cannot be resumed' in line and '"torch>=2.6"' in line


def test_hook_removes_only_config():
    checkpoint = dict(
        meta=dict(config='print(1)', epoch=3), state_dict=dict(a=1))
    SafeResumeHook().after_load_checkpoint(None, checkpoint)
    assert checkpoint == dict(meta=dict(epoch=3), state_dict=dict(a=1))


@pytest.mark.parametrize('weights', [dict(a=1), dict(a=1, meta=3)])
def test_hook_accepts_weights_without_meta(weights):
    expected = dict(weights)
    SafeResumeHook().after_load_checkpoint(None, weights)
    assert weights == expected


def test_hook_runs_before_checkpoint_hook():
    assert get_priority(SafeResumeHook.priority) < get_priority(
        CheckpointHook.priority)
