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
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save(content, path):
    torch.save(content, path)
    return str(path)


def test_log_of_a_training_is_loaded_and_still_counts(tmp_path):
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


def test_a_program_in_a_checkpoint_is_refused_unexecuted(tmp_path):
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
def test_getattr_leads_to_the_statistics_of_a_log_alone(tmp_path, owner,
                                                        name):
    path = save([Call(getattr, owner, name)], tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)


@pytest.mark.parametrize('name', ['min', 'max', 'mean', 'current'])
def test_getattr_leads_to_each_statistic(tmp_path, name):
    path = save(dict(x=Call(getattr, HistoryBuffer, name)), tmp_path / 'x.pth')
    assert load_checkpoint(path)['x'] is getattr(HistoryBuffer, name)


@pytest.mark.parametrize('name', ['eval', 'exec', 'open', '__import__'])
def test_no_other_builtin_is_had(tmp_path, name):
    path = save([Call(getattr(builtins, name), '1')], tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=f"not safe to load: .*{name}"):
        load_checkpoint(path)


def test_pickles_of_old_pytorch_are_refused_alike(tmp_path):
    marker = tmp_path / 'executed'
    path = str(tmp_path / 'evil.pth')
    torch.save(dict(x=Call(os.system, f'touch {marker}')), path,
               _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)
    assert not marker.exists()


def test_the_runner_loads_as_safely(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes',
                        OrderedDict(CheckpointLoader._schemes))
    marker = tmp_path / 'executed'
    load_checkpoints_safely()
    path = save([Call(os.system, f'touch {marker}')], tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='posix.system was not'):
        CheckpointLoader.load_checkpoint(path, 'cpu')
    assert not marker.exists()


def test_tensors_share_memory_as_they_did_when_they_were_saved(tmp_path):
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
    """Change the pickle in a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, change(content) if name.endswith(
                'data.pkl') else content)


@pytest.mark.parametrize('core', [b'numpy.core', b'numpy._core'])
def test_a_log_that_another_numpy_wrote_is_loaded(tmp_path, core):
    path = save(dict(array=np.arange(3.), scalar=np.float64(2)),
                tmp_path / 'x.pth')
    rewrite(path, lambda content: re.sub(
        rb'cnumpy\._?core\.', b'c' + core + b'.', content))
    loaded = load_checkpoint(path)
    assert loaded['array'].tolist() == [0, 1, 2] and loaded['scalar'] == 2


@pytest.mark.parametrize('made', ['script', 'tar'])
def test_what_pytorch_leaves_to_other_loaders_is_refused(tmp_path, made):
    path = tmp_path / 'x.pth'
    if made == 'script':
        torch.jit.script(torch.nn.ReLU()).save(str(path))
    else:
        with tarfile.open(path, 'w') as archive:
            archive.add(__file__, 'storages')
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)


def test_a_file_does_not_change_the_classes_that_it_names(tmp_path):
    path = save({}, tmp_path / 'x.pth')
    # HistoryBuffer.update = None, in the pickle's own words.
    rewrite(path, lambda _: b'\x80\x02'
            b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
            b'N}X\x06\x00\x00\x00updateNs\x86b.')
    with pytest.raises(ValueError, match='not safe to load'):
        load_checkpoint(path)
    assert HistoryBuffer.update is not None


PLAIN = b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t'


@pytest.mark.parametrize('state', [
    b'NNNK\x08K\x08K\x3ft',  # numbers that are addresses of objects
    b'NNNK\x01K\x01K\x00t',  # of another size
])
def test_a_type_of_numbers_is_not_forged(tmp_path, state):
    path = save(dict(x=np.arange(2.)), tmp_path / 'x.pth')
    assert load_checkpoint(path)['x'].tolist() == [0, 1]
    rewrite(path, lambda content: content.replace(PLAIN, state))
    with pytest.raises(ValueError, match='Unsupported state of dtype'):
        load_checkpoint(path)


def test_numpys_own_types_stay_as_they_are(tmp_path):
    path = save(dict(x=np.dtype('float64')), tmp_path / 'x.pth')
    # The one of all arrays, not a copy, with its bytes swapped.
    rewrite(path, lambda content: content.replace(
        b'\x89\x88', b'\x89\x89').replace(b'<q', b'>q'))
    assert load_checkpoint(path)['x'] == np.dtype('>f8')
    assert np.dtype('float64').isnative


def test_a_process_that_forbids_programs_in_files_loads_too(
        tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    path = save(dict(x=torch.ones(2)), tmp_path / 'x.pth')
    assert load_checkpoint(path)['x'].tolist() == [1, 1]
    assert os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] == '1'


def test_milestones_of_a_scheduler_are_loaded(tmp_path):
    milestones = Counter([8, 11])
    path = save(dict(milestones=milestones), tmp_path / 'x.pth')
    assert load_checkpoint(path)['milestones'] == milestones


def test_a_text_is_told_to_be_no_pickle(tmp_path):
    path = tmp_path / 'notes.pth'
    path.write_text('# notes')
    with pytest.raises(ValueError, match="notes.pth' is not a checkpoint.*"
                       'not a pickle: byte 35'):
        load_checkpoint(str(path))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint '.*no.pth'"):
        load_checkpoint(tmp_path / 'no.pth')


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_checkpoint(tmp_path)


def test_a_bare_tensor_is_no_checkpoint(tmp_path):
    path = save(torch.zeros(1), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='holds a Tensor'):
        load_checkpoint(path)
