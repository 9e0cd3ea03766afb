import builtins
import io
import os
import pickle
import re
import shutil
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
    CheckpointError,
    load_checkpoint,
    load_checkpoints_safely,
)
from univip_mm.engine.safe_load import _warn_once, load

REFUSED = 'is (refused|truncated|not a checkpoint) '


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
    with pytest.raises(ValueError, match=f"evil.pth' {REFUSED}") as e:
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
    with pytest.raises(ValueError, match=REFUSED):
        load_checkpoint(path)


@pytest.mark.parametrize('name', ['min', 'max', 'mean', 'current'])
def test_load_checkpoint_allows_buffer_statistics(tmp_path, name):
    path = save(dict(x=Call(getattr, HistoryBuffer, name)), tmp_path / 'x.pth')
    assert load_checkpoint(path)['x'] == name  # no function


@pytest.mark.parametrize('name', ['eval', 'exec', 'open', '__import__'])
def test_load_checkpoint_refuses_builtins(tmp_path, name):
    path = save([Call(getattr(builtins, name), '1')], tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=f'{REFUSED}.*{name}'):
        load_checkpoint(path)


def test_load_checkpoint_refuses_code_in_legacy_format(tmp_path):
    marker = tmp_path / 'executed'
    path = str(tmp_path / 'evil.pth')
    torch.save(dict(x=Call(os.system, f'touch {marker}')), path,
               _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=REFUSED):
        load_checkpoint(path)
    assert not marker.exists()


def test_runner_loader_refuses_code(tmp_path, loaders):
    marker = tmp_path / 'executed'
    path = save([Call(os.system, f'touch {marker}')], tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='posix.system'):
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
    with pytest.raises(ValueError, match=REFUSED):
        load_checkpoint(path)


def test_load_checkpoint_cannot_change_classes(tmp_path):
    path = save({}, tmp_path / 'x.pth')
    # Opcodes of: HistoryBuffer.update = None
    rewrite(path, lambda _: b'\x80\x02'
            b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
            b'N}X\x06\x00\x00\x00updateNs\x86b.')
    with pytest.raises(ValueError, match=REFUSED):
        load_checkpoint(path)
    assert HistoryBuffer.update is not None


def encoded(value):
    """Return the opcodes of a plain value."""
    return pickle.dumps(value, 2)[2:-1]


ORDERED = b'ccollections\nOrderedDict\n)R'
BUFFER = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
ARRAY = (b'cnumpy._core.multiarray\n_reconstruct\n'
         b'cnumpy\nndarray\nK\x00\x85c_codecs\nencode\n'
         b'X\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R\x87R')
FLOAT = b'cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R'
INTERFACE = dict(__array_interface__=dict(
    version=3, shape=(1 << 20, ), typestr='|O', data=(8, False)))


def array(shape, dtype, content, state=True):
    """Return opcodes of an array with a forged state."""
    return ARRAY + (b'(K\x01' + encoded(shape) + dtype + b'\x89' + encoded(
        content) + b'tb' if state else b'')


def crafted(path, *parts):
    """Write a checkpoint whose pickle has these opcodes and values."""
    save({}, path)
    rewrite(path, lambda _: b'\x80\x02' + b''.join(
        x if isinstance(x, bytes) else encoded(x) for x in parts) + b'.')
    return str(path)


def test_load_checkpoint_reads_crafted_array(tmp_path):
    """The next tests differ from this valid pickle in one detail only."""
    path = crafted(tmp_path / 'x.pth', b'}', 'x', array(
        (2, ), FLOAT, np.array([1., 2.]).tobytes()), b's')
    loaded = load_checkpoint(path)['x']
    assert type(loaded) is np.ndarray and loaded.tolist() == [1, 2]


@pytest.mark.parametrize('parts, reason', [
    # NumPy reads an attribute of this name as an address.
    ([BUFFER, b')\x81', INTERFACE, b'b'], 'HistoryBuffer'),
    ([BUFFER, b')R', INTERFACE, b'b'], 'HistoryBuffer'),
    ([b'ctorch._tensor\n_rebuild_from_type_v2\n(', BUFFER, BUFFER, b')',
      INTERFACE, b'tR'], 'HistoryBuffer'),
    # numpy.array of an object with such an attribute.
    ([b'cnumpy\narray\n', ORDERED, INTERFACE, b'b\x85R'], 'numpy.array'),
    ([b'cnumpy._core.multiarray\narray\n', ORDERED, INTERFACE, b'b\x85R'],
     'numpy._core.multiarray.array'),
    # numpy.ndarray(shape, dtype, buffer, offset, strides)
    ([b'cnumpy\nndarray\n(', (4, ), FLOAT, encoded(b'abcdefgh'),
      -4096, (8, ), b'tR'], '_Ndarray'),
    ([b'cnumpy\nndarray\n(', (4, ), FLOAT, b't\x81'], '_Ndarray'),
    ([array((3, ), FLOAT, b'12345678')], 'size does not match'),
    ([array((-1, ), FLOAT, b'12345678')], 'shape'),
    ([array((True, ), FLOAT, b'12345678')], 'shape'),
    ([array((2**63, 2**63), FLOAT, b'')], 'content'),
    ([array((0, 2**70), FLOAT, b'')], 'dimension'),
    ([array((1, ) * 33, FLOAT, b'12345678')], 'shape'),
    ([array([1], FLOAT, b'12345678')], 'shape'),
    ([array((1, ), FLOAT, '12345678')], 'content'),
    ([array((1, ), FLOAT, b'', state=False)], 'state of an array'),
    ([array((1, ), FLOAT, b'12345678'), (1, 2), b'b'], 'state of an array'),
    ([array((1, ), b'cnumpy\ndtype\n' + encoded(('O8', )) + b'R',
            b'12345678')], "dtype 'O8'"),
    ([array((1, ), b'cnumpy\ndtype\n' + encoded(('V8', )) + b'R',
            b'12345678')], "dtype 'V8'"),
    ([array((1, ), b'cnumpy\ndtype\n' + encoded(([('a', 'O')], )) + b'R',
            b'12345678')], 'dtype'),
    ([array((1, ), encoded('f8'), b'12345678')], 'dtype'),
    ([b'cnumpy._core.multiarray\nscalar\n', FLOAT, encoded(b'1234'),
      b'\x86R'],
     'size does not match'),
    ([b'cnumpy._core.multiarray\nscalar\n', FLOAT, b'\x85R'], 'scalar'),
    ([b'cbuiltins\nbytes\n', 10**12, b'\x85R'], 'call of bytes'),
    ([b'}', array((1, ), FLOAT, b'12345678'), b'Ns'], 'dict key'),
    ([b']q\x00h\x00a'], 'nesting'),
    # A pair of the same two pairs of ..., 2**60 values in all.
    ([b')q\x00' + b''.join(b'h%c\x86q%c' % (i, i + 1) for i in range(60))],
     'more than 10000000 values'),
    ([b']' * 5000 + b'a' * 4999], 'nesting'),
    ([BUFFER], 'type'),
    ([b'ctorch._utils\n_rebuild_tensor_v2\n'], 'type'),
])
def test_load_checkpoint_refuses_forged_content(tmp_path, parts, reason):
    path = crafted(tmp_path / 'evil.pth', b'}', 'x', *parts, b's')
    with pytest.raises(ValueError, match=f'{REFUSED}.*{reason}'):
        load_checkpoint(path)


@pytest.mark.parametrize('buffer', [
    dict(_log_history=[1.], _count_history=[1.], max_length=9),
    dict(_log_history=np.ones(2), _count_history=np.ones(1), max_length=9),
    dict(_log_history=np.ones((2, 2)), _count_history=np.ones((2, 2)),
         max_length=9),
    dict(_log_history=np.ones(2), _count_history=np.ones(2), max_length=1),
    dict(_log_history=np.ones(2), _count_history=np.ones(2), max_length=True),
])
def test_load_checkpoint_checks_history_buffers(tmp_path, buffer):
    forged = HistoryBuffer()
    forged.__dict__.update(buffer)
    path = save(dict(x=forged), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='content of a HistoryBuffer'):
        load_checkpoint(path)


def test_load_checkpoint_drops_foreign_attributes(tmp_path):
    weights = OrderedDict(a=torch.ones(2))
    weights._metadata = OrderedDict({'': dict(version=1)})
    weights.__array_interface__ = weights.keys = 'forged'
    forged = dict(__array_interface__='forged', detach='forged')
    tensors = [
        Call(torch._tensor._rebuild_from_type_v2, torch.Tensor, torch.Tensor,
             (), forged),
        Call(torch._utils._rebuild_parameter_with_state, torch.ones(2), True,
             OrderedDict(), forged)]
    path = save(dict(x=[weights, *tensors]), tmp_path / 'x.pth')
    loaded, *tensors = load_checkpoint(path)['x']
    assert list(loaded) == ['a'] and loaded['a'].tolist() == [1, 1]
    assert vars(loaded) == dict(_metadata={'': dict(version=1)})
    path = crafted(tmp_path / 'y.pth', b'}', 'x', ORDERED, 'a', 1, b's',
                   dict(items='forged'), b'bs')
    assert load_checkpoint(path)['x'].items() == {('a', 1)}
    assert [vars(x) for x in tensors] == [{}, {}]
    assert [type(x) for x in tensors] == [torch.Tensor, torch.nn.Parameter]


@pytest.mark.parametrize('name', ['b1', 'i1', 'u8', '>i4', 'f2', '>f8', 'c16'])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_load_checkpoint_reads_all_numbers(tmp_path, name, order):
    numbers = np.array([[0, 1, 2], [3, 4, 5]]).astype(name, order=order)
    empty = np.zeros((0, 3), name)
    path = save(dict(x=[numbers, numbers[0, 1], empty, np.dtype(name)]),
                tmp_path / 'x.pth')
    array, scalar, none, dtype = load_checkpoint(path)['x']
    assert np.array_equal(array, numbers) and array.dtype.isnative
    assert array.dtype.kind == numbers.dtype.kind
    assert scalar == numbers[0, 1] and type(scalar).__module__ == 'builtins'
    assert none.shape == (0, 3) and dtype == np.dtype(name)


def test_load_checkpoint_ignores_other_safe_globals(tmp_path):
    marker = tmp_path / 'executed'
    path = save(dict(x=Call(os.path.join, str(marker))), tmp_path / 'x.pth')
    with torch.serialization.safe_globals([os.path.join, HistoryBuffer]):
        torch.load(path, weights_only=True)
        allowed = torch.serialization.get_safe_globals()
        with pytest.raises(ValueError, match='posixpath.join'):
            load_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == set(allowed)


def test_load_checkpoint_refuses_two_directories(tmp_path):
    """Python's zipfile and PyTorch see different files."""
    path, script = tmp_path / 'evil.pth', tmp_path / 'script.pth'
    torch.jit.script(torch.nn.ReLU()).save(str(script))
    hidden = script.read_bytes()
    with zipfile.ZipFile(save({}, path)) as archive:
        plain = {x: archive.read(x) for x in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in plain.items():
            archive.writestr(name, content)
    for content in (hidden + buffer.getvalue(), buffer.getvalue() + hidden):
        path.write_bytes(content)
        try:
            assert load_checkpoint(path) == {}
        except ValueError as e:
            assert 'is refused' in str(e) or 'is not a' in str(e)


@pytest.mark.parametrize('version, refused', [
    ('2.1.2+cu121', True), ('2.5.1', True), ('2.6.0', False),
    ('2.9.1+cpu', False), ('2.10.0', False)])
def test_load_checkpoint_depends_on_torch(tmp_path, monkeypatch, version,
                                          refused):
    lines = []
    monkeypatch.setattr('univip_mm.engine.safe_load.print_log',
                        lambda text, **options: lines.append(text))
    path = save(dict(x=1), tmp_path / 'x.pth')
    monkeypatch.setattr(torch, '__version__', version)
    _warn_once.cache_clear()
    if refused:
        with pytest.raises(ValueError, match=f'x.pth.*{version[:5]}.*CVE-2025-'
                           '32434.*"torch>=2.6"') as e:
            load_checkpoint(path)
        assert '\n' not in str(e.value)
        return
    for _ in range(2):
        load_checkpoint(path)
    assert len(lines) == (version != '2.10.0')
    assert all('CVE-2026-24747' in x and version in x for x in lines)


def test_load_refuses_missing_data(tmp_path):
    """The directory of the file is intact, and follows half of a tensor."""
    path = tmp_path / 'x.pth'
    with zipfile.ZipFile(save(dict(x=torch.zeros(100_000)), path)) as archive:
        records = {x: archive.read(x) for x in archive.namelist()}
    data = next(x for x in records if x.endswith('/data/0'))
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in records.items():
            if name != data:
                archive.writestr(name, content)
        archive.writestr(data, records[data])
    content = path.read_bytes()
    size = len(content)
    directory = content.index(b'PK\x01\x02')
    start = directory - 300_000
    # The last record points to the directory.
    path.write_bytes(content[:start] + content[directory:-6]
                     + start.to_bytes(4, 'little') + content[-2:])
    assert path.stat().st_size == size - 300_000
    for only_structure in (True, False):
        with pytest.raises(ValueError, match='archive is corrupted'):
            load(path, only_structure=only_structure)


@pytest.mark.parametrize('zipped', [True, False])
def test_load_reads_structure_of_both_formats(tmp_path, zipped):
    path = tmp_path / 'x.pth'
    torch.save(dict(x=torch.zeros(3), meta=dict(iter=3)), path,
               _use_new_zipfile_serialization=zipped)
    assert load(path, only_structure=True)['meta'] == dict(iter=3)


@pytest.fixture
def loaders(monkeypatch):
    """Replace MMEngine's loaders with ours, and restore them."""
    monkeypatch.setattr(CheckpointLoader, '_schemes',
                        OrderedDict(CheckpointLoader._schemes))
    load_checkpoints_safely()


def test_load_checkpoints_safely_covers_all_schemes(loaders):
    assert {x.__module__ for x in CheckpointLoader._schemes.values()} == {
        'univip_mm.engine.checkpoint'}


@pytest.mark.parametrize('url', [
    'openmmlab://x', 'open-mmlab://x', 'mmcls://x', 'modelzoo://x',
    'pavi://x', 's3://x', 'a:s3://x', 'petrel://x', 'torchvision://x'])
def test_runner_loader_refuses_scheme(loaders, url):
    with pytest.raises(CheckpointError, match=url):
        CheckpointLoader.load_checkpoint(url, 'cpu')


@pytest.mark.parametrize('url', [
    'https://example.org', 'https://example.org/..', 'https://e.org/x.pth'])
def test_runner_loader_reports_failed_download(loaders, tmp_path, monkeypatch,
                                               url):

    def download(url, path, **options):
        if os.path.isdir(path):
            raise IsADirectoryError(path)
        raise OSError('no route')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    with pytest.raises(CheckpointError, match='download the file yourself'):
        CheckpointLoader.load_checkpoint(url, 'cpu')


@pytest.mark.parametrize('url', [
    'https://example.org/a/evil.pth?x=1', 'torchvision://resnet18'])
def test_runner_loader_reads_urls_safely(loaders, tmp_path, monkeypatch, url):
    marker = tmp_path / 'executed'
    evil = save(Call(os.system, f'touch {marker}'), tmp_path / 'evil.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(
        torch.hub, 'download_url_to_file',
        lambda url, path, **options: shutil.copy(evil, path))
    with pytest.raises(CheckpointError, match='posix.system'):
        CheckpointLoader.load_checkpoint(url, 'cpu')
    assert not marker.exists()
    cached, = (tmp_path / 'hub/checkpoints').iterdir()
    save(dict(x=1), cached)
    assert CheckpointLoader.load_checkpoint(url, 'cpu') == dict(x=1)


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
                       'give a file'):
        load_checkpoint(str(path))


def test_load_checkpoint_names_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint '.*no.pth'"):
        load_checkpoint(tmp_path / 'no.pth')


def test_load_checkpoint_refuses_folder_and_pipe(tmp_path):
    os.mkfifo(tmp_path / 'pipe')  # opening it would block
    for path in (tmp_path, tmp_path / 'pipe'):
        with pytest.raises(ValueError, match=f"'{path}' is not a file"):
            load_checkpoint(path)


def test_load_checkpoint_refuses_tensor(tmp_path):
    path = save(torch.zeros(1), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='contains a Tensor'):
        load_checkpoint(path)
