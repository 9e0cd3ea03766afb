import builtins
import os
import pickle
import re
import tarfile
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import CheckpointLoader

from univip_mm.engine.checkpoint import (
    load_checkpoint,
    load_checkpoints_safely,
)


class Call:
    """Object that pickles as a function call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save(content, path):
    torch.save(content, path)
    return str(path)


def test_load_checkpoint_restores_history_buffers(tmp_path):
    hub = MessageHub('log')
    for value in (1., 2., 6.):
        hub.update_scalar('train/loss', value)
    hub.update_scalar('train/count', 3)
    hub.update_scalar('train/share', np.float32(0.5))
    path = save(dict(message_hub=hub.state_dict()), tmp_path / 'x.pth')
    scalars = load_checkpoint(path)['message_hub']['log_scalars']
    loss = scalars['train/loss']
    assert isinstance(loss, HistoryBuffer)
    assert loss.statistics('mean') == 3 and loss.statistics('max') == 6
    assert loss.current() == 6 and loss.min() == 1
    assert scalars['train/count'].current() == 3
    assert scalars['train/share'].current() == 0.5


def test_load_checkpoint_refuses_code(tmp_path):
    marker = tmp_path / 'executed'
    path = save(dict(state_dict=Call(os.system, f'touch {marker}')),
                tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match="evil.pth.*not safe") as e:
        load_checkpoint(path)
    assert 'system' in str(e.value) and '\n' not in str(e.value)
    assert not marker.exists()


@pytest.mark.parametrize('owner, name', [
    (HistoryBuffer, '__init__'),
    (HistoryBuffer, 'update'),
    (HistoryBuffer, '__subclasses__'),
    (np.ndarray, 'tofile'),
    (OrderedDict, 'min'),
    ('text', 'format'),
])
def test_load_checkpoint_refuses_other_attributes(tmp_path, owner, name):
    path = save([Call(getattr, owner, name)], tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)


@pytest.mark.parametrize('name', ['min', 'max', 'mean', 'current'])
def test_load_checkpoint_allows_buffer_statistics(tmp_path, name):
    path = save(dict(x=Call(getattr, HistoryBuffer, name)), tmp_path / 'x.pth')
    assert load_checkpoint(path)['x'] is getattr(HistoryBuffer, name)


@pytest.mark.parametrize('name', ['eval', 'exec', 'open', '__import__'])
def test_load_checkpoint_refuses_builtins(tmp_path, name):
    path = save([Call(getattr(builtins, name), '1')], tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=f"not safe to load: .*{name}"):
        load_checkpoint(path)


def test_load_checkpoint_refuses_code_in_legacy_format(tmp_path):
    marker = tmp_path / 'executed'
    path = str(tmp_path / 'evil.pth')
    torch.save(dict(x=Call(os.system, f'touch {marker}')), path,
               _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)
    assert not marker.exists()


def test_runner_loader_refuses_code(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes',
                        OrderedDict(CheckpointLoader._schemes))
    marker = tmp_path / 'executed'
    load_checkpoints_safely()
    path = save([Call(os.system, f'touch {marker}')], tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='posix.system was not'):
        CheckpointLoader.load_checkpoint(path, 'cpu')
    assert not marker.exists()


def test_load_checkpoint_keeps_shared_memory(tmp_path):
    whole = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)
    weights = OrderedDict(whole=whole, row=whole[1].t(),
                          parameter=torch.nn.Parameter(torch.ones(2)))
    for zipped in (True, False):
        torch.save(dict(state_dict=weights), tmp_path / 'x.pth',
                   _use_new_zipfile_serialization=zipped)
        loaded = load_checkpoint(tmp_path / 'x.pth')['state_dict']
        assert type(loaded) is OrderedDict and torch.equal(
            loaded['whole'], whole)
        assert type(loaded['parameter']) is torch.nn.Parameter
        loaded['row'][0] = 99
        assert loaded['whole'][1, 0] == 99


def rewrite(path, change):
    """Change the pickle inside a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, change(content) if name.endswith(
                'data.pkl') else content)


@pytest.mark.parametrize('core', [b'numpy.core', b'numpy._core'])
def test_load_checkpoint_reads_both_numpy_versions(tmp_path, core):
    path = save(dict(array=np.arange(3.), scalar=np.float64(2)),
                tmp_path / 'x.pth')
    rewrite(path, lambda content: re.sub(
        rb'cnumpy\._?core\.', b'c' + core + b'.', content))
    loaded = load_checkpoint(path)
    assert loaded['array'].tolist() == [0, 1, 2] and loaded['scalar'] == 2


@pytest.mark.parametrize('made', ['script', 'tar'])
def test_load_checkpoint_refuses_torchscript_and_tar(tmp_path, made):
    path = tmp_path / 'x.pth'
    if made == 'script':
        torch.jit.script(torch.nn.ReLU()).save(str(path))
    else:
        with tarfile.open(path, 'w') as archive:
            archive.add(__file__, 'storages')
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)


def test_load_checkpoint_cannot_change_classes(tmp_path):
    path = save({}, tmp_path / 'x.pth')
    # Opcodes of: HistoryBuffer.update = None
    rewrite(path, lambda _: b'\x80\x02'
            b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
            b'N}X\x06\x00\x00\x00updateNs\x86b.')
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)
    assert HistoryBuffer.update is not None


PLAIN = b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t'


@pytest.mark.parametrize('state', [
    b'NNNK\x08K\x08K\x3ft',  # numbers that are object addresses
    b'NNNK\x01K\x01K\x00t',  # another item size
])
def test_load_checkpoint_refuses_forged_dtypes(tmp_path, state):
    path = save(dict(x=np.arange(2.)), tmp_path / 'x.pth')
    assert load_checkpoint(path)['x'].tolist() == [0, 1]
    rewrite(path, lambda content: content.replace(PLAIN, state))
    with pytest.raises(ValueError, match='Unsupported state of dtype'):
        load_checkpoint(path)


def test_load_checkpoint_keeps_numpy_dtypes(tmp_path):
    path = save(dict(x=np.dtype('float64')), tmp_path / 'x.pth')
    # Swap the bytes of NumPy's own dtype, not of a copy.
    rewrite(path, lambda content: content.replace(
        b'\x89\x88', b'\x89\x89').replace(b'<q', b'>q'))
    assert load_checkpoint(path)['x'] == np.dtype('>f8')
    assert np.dtype('float64').isnative


def test_load_checkpoint_with_forced_weights_only(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    path = save(dict(x=torch.ones(2)), tmp_path / 'x.pth')
    assert load_checkpoint(path)['x'].tolist() == [1, 1]
    assert os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] == '1'


def test_load_checkpoint_allows_counters(tmp_path):
    milestones = Counter([8, 11])
    path = save(dict(milestones=milestones), tmp_path / 'x.pth')
    assert load_checkpoint(path)['milestones'] == milestones


def test_load_checkpoint_refuses_text_file(tmp_path):
    path = tmp_path / 'notes.pth'
    path.write_text('# notes')
    with pytest.raises(ValueError, match="notes.pth' is not a checkpoint.*"
                       'not a pickle: byte 35'):
        load_checkpoint(str(path))


def test_load_checkpoint_names_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint '.*no.pth'"):
        load_checkpoint(tmp_path / 'no.pth')


def test_load_checkpoint_refuses_folder(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_checkpoint(tmp_path)


def test_load_checkpoint_refuses_tensor(tmp_path):
    path = save(torch.zeros(1), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='contains a Tensor'):
        load_checkpoint(path)
