from importlib.machinery import ModuleSpec

import pytest

from univip_mm.downstream import packages
from univip_mm.downstream.packages import check_package, find_tool


@pytest.fixture
def installed(monkeypatch):
    """Return a function that fakes the installed packages and versions."""
    def fake(*names, **versions):
        versions = {k.replace('_', '-'): v for k, v in versions.items()}
        monkeypatch.setattr(packages, '_version', versions.get)
        monkeypatch.setattr(
            packages, 'find_spec',
            lambda name: ModuleSpec(name, None) if name in names else None)
    return fake


def test_check_package_accepts_complete_package(installed):
    installed('mmdet', 'mmcv', 'mmcv._ext', mmcv='2.1.0')
    check_package('mmdet')


def test_check_package_mmpretrain_needs_no_mmcv(installed):
    installed('mmpretrain')
    check_package('mmpretrain')


@pytest.mark.parametrize('package, cure', [
    ('mmdet', 'pip install mmdet==3.3.0'),
    ('mmseg', 'pip install mmsegmentation==1.2.2 ftfy regex prettytable'),
])
def test_check_package_names_missing_package(installed, package, cure):
    installed('mmcv._ext')
    with pytest.raises(ValueError, match=f'{package} is not installed') as e:
        check_package(package)
    assert cure in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_check_package_rejects_mmcv_lite(installed, package):
    installed(package, 'mmcv', mmcv_lite='2.1.0')
    with pytest.raises(ValueError, match='is mmcv-lite, or has no') as e:
        check_package(package)
    assert 'pip uninstall mmcv-lite mmcv' in str(e.value)
    assert '\n' not in str(e.value)


def test_check_package_rejects_missing_mmcv(installed):
    installed('mmdet')
    with pytest.raises(ValueError, match='but mmcv is missing'):
        check_package('mmdet')


def test_check_package_rejects_mmcv_with_mmcv_lite(installed):
    installed('mmseg', 'mmcv', 'mmcv._ext', mmcv='2.1.0', mmcv_lite='2.1.0')
    with pytest.raises(ValueError, match='are both installed'):
        check_package('mmseg')


def test_check_package_rejects_new_mmcv(installed):
    installed('mmdet', 'mmcv', 'mmcv._ext', mmcv='2.2.0')
    with pytest.raises(ValueError, match='but 2.2.0 is installed'):
        check_package('mmdet')


def test_check_package_rejects_unknown_package():
    with pytest.raises(ValueError, match='mmdet, mmseg, mmpretrain'):
        check_package('detectron2')


@pytest.mark.parametrize('tool', packages.TOOLS)
def test_find_tool_finds_tools_of_mmpretrain(tool):
    path = find_tool('mmpretrain', tool)
    assert path.name == f'{tool}.py' and 'Runner' in path.read_text()


def test_find_tool_names_missing_tool(tmp_path, monkeypatch):
    spec = ModuleSpec('mmdet', None,
                      origin=str(tmp_path / 'mmdet' / '__init__.py'))
    monkeypatch.setattr(packages, 'find_spec', lambda name: spec)
    with pytest.raises(FileNotFoundError, match='has no tools/train.py'):
        find_tool('mmdet', 'train')
