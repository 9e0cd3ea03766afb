import pytest

from univip_mm.workflow import devices
from univip_mm.workflow.devices import find_devices


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setattr(devices, '_probe_gpus', lambda: [
        ['H100', 9], ['H100', 9], ['V100', 7]])


def test_find_devices_without_a_gpu(monkeypatch):
    monkeypatch.setattr(devices, '_probe_gpus', lambda: [])
    found = find_devices('auto')
    assert (found.kind, found.count, found.bfloat16) == ('cpu', 1, False)
    assert 'no GPU' in found.reason
    assert find_devices('cpu:3').count == 3
    with pytest.raises(ValueError, match='finds no GPU'):
        find_devices(1)


def test_find_devices_chooses_gpus(three_gpus):
    everything = find_devices()
    assert (everything.count, everything.visible) == (3, None)
    assert not everything.bfloat16  # the V100 has none
    two = find_devices(2)
    assert (two.count, two.visible, two.bfloat16) == (2, '0,1', True)
    assert find_devices('2,0').visible == '2,0'
    assert find_devices('1,').visible == '1'
    assert find_devices('cpu').visible == ''


def test_find_devices_counts_visible_gpus(three_gpus, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6')
    assert find_devices('0,2').visible == '4,6'


@pytest.mark.parametrize('wanted', ['', '0', 'gpu', '0,0', '4', '-1', 'cpu:0'])
def test_find_devices_refuses_others(three_gpus, wanted):
    with pytest.raises(ValueError, match='--devices'):
        find_devices(wanted)
