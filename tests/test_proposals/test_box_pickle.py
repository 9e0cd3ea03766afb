import os
import pickle

import numpy as np
import pytest
import torch

from univip_mm.proposals.box_pickle import load_pickle


class Payload:

    def __reduce__(self):
        return os.system, ('touch /tmp/univip_payload_ran', )


class Rebuilt:
    """Requests a tensor whose storage is a pickle with a payload."""

    def __reduce__(self):
        from torch.storage import _load_from_bytes
        return _load_from_bytes, (pickle.dumps(Payload()), )


@pytest.mark.parametrize('payload, named', [
    (Payload(), 'posix.system'),
    (dict(bbox={'b/1.jpg': [Payload()]}), 'posix.system'),
    (Rebuilt(), 'not a pickle of boxes'), (os.getcwd, 'posix.getcwd'),
    (getattr, 'builtins.getattr'), (np.load, 'numpy.*load'),
    (np.array([{}]), "numpy.dtype 'O8'"),
    (np.zeros(2, 'U3'), "numpy.dtype 'U3'")])
def test_load_pickle_refuses_payload(tmp_path, payload, named):
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=named):
        load_pickle(path)
    assert not os.path.exists('/tmp/univip_payload_ran')


def test_load_pickle_refuses_payload_in_torch_file(tmp_path):
    torch.save(dict(bbox=Payload()), tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='not a pickle of boxes'):
        load_pickle(tmp_path / 'evil.pth')
    assert not os.path.exists('/tmp/univip_payload_ran')


class Forged:
    """An array of objects whose addresses the pickle chooses."""

    def __reduce__(self):
        return np.dtype, ('f8', False, True), (
            3, '|', None, None, None, 8, 8, 63)


def test_load_pickle_ignores_forged_dtype_state(tmp_path):
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(Forged()))
    assert load_pickle(path).dtype == np.float64
    assert not load_pickle(path).dtype.hasobject


@pytest.mark.parametrize('dtype', ['<f4', '>f8', '<i2', 'u1', 'bool', '>i4'])
@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_load_pickle_reads_every_kind_of_array(
        tmp_path, dtype, order, protocol):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype, order=order)
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps(dict(a=array, b=array[1, 2]), protocol))
    loaded = load_pickle(path)
    assert np.array_equal(np.asarray(loaded['a']), array)
    assert loaded['b'] == array[1, 2]
