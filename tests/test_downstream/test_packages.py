from importlib.machinery import ModuleSpec

import pytest

from univip_mm.downstream import hosts
from univip_mm.downstream.packages import check_host, host_tool


@pytest.fixture
def installed(monkeypatch):
    """Say which packages are there, and of which versions."""
    def say(*names, **versions):
        versions = {k.replace('_', '-'): v for k, v in versions.items()}
        monkeypatch.setattr(hosts, '_version', versions.get)
        monkeypatch.setattr(
            hosts, 'find_spec',
            lambda name: ModuleSpec(name, None) if name in names else None)
    return say


def test_a_complete_host_will_do(installed):
    installed('mmdet', 'mmcv', 'mmcv._ext', mmcv='2.1.0')
    check_host('mmdet')


def test_mmpretrain_does_without_operators(installed):
    installed('mmpretrain')
    check_host('mmpretrain')


@pytest.mark.parametrize('host, cure', [
    ('mmdet', 'pip install mmdet==3.3.0'),
    ('mmseg', 'pip install mmsegmentation==1.2.2 ftfy regex prettytable'),
])
def test_a_missing_host_is_told_with_the_cure(installed, host, cure):
    installed('mmcv._ext')
    with pytest.raises(ValueError, match=f'{host} is not installed') as e:
        check_host(host)
    assert cure in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
def test_mmcv_lite_is_told_with_the_cure(installed, host):
    installed(host, 'mmcv', mmcv_lite='2.1.0')
    with pytest.raises(ValueError, match='mmcv-lite, an mmcv') as e:
        check_host(host)
    assert 'pip uninstall mmcv-lite mmcv' in str(e.value)
    assert '\n' not in str(e.value)


def test_no_mmcv_at_all_is_told(installed):
    installed('mmdet')
    with pytest.raises(ValueError, match='or none is installed'):
        check_host('mmdet')


def test_mmcv_beside_mmcv_lite_is_told(installed):
    installed('mmseg', 'mmcv', 'mmcv._ext', mmcv='2.1.0', mmcv_lite='2.1.0')
    with pytest.raises(ValueError, match='are both installed'):
        check_host('mmseg')


def test_an_mmcv_that_the_host_refuses_is_told(installed):
    installed('mmdet', 'mmcv', 'mmcv._ext', mmcv='2.2.0')
    with pytest.raises(ValueError, match='but 2.2.0 is installed'):
        check_host('mmdet')


def test_an_unknown_host_is_told():
    with pytest.raises(ValueError, match='mmdet, mmseg, mmpretrain'):
        check_host('detectron2')


@pytest.mark.parametrize('tool', hosts.TOOLS)
def test_tools_of_mmpretrain_are_found(tool):
    path = host_tool('mmpretrain', tool)
    assert path.name == f'{tool}.py' and 'Runner' in path.read_text()


def test_a_host_without_tools_is_told(tmp_path, monkeypatch):
    spec = ModuleSpec('mmdet', None,
                      origin=str(tmp_path / 'mmdet' / '__init__.py'))
    monkeypatch.setattr(hosts, 'find_spec', lambda name: spec)
    with pytest.raises(FileNotFoundError, match='has no tools/train.py'):
        host_tool('mmdet', 'train')
