import subprocess
import sys

import pytest
from mmengine.config import Config
from tiny import CONFIGS, ROOT

import univip_mm  # noqa: F401
from _univip_mm_configs import find_config


def inherit(folder, name):
    path = folder / 'mine.py'
    path.write_text(f'_base_ = {name!r}\n')
    return Config.fromfile(path)


@pytest.mark.parametrize('name', [
    'univip_r50_coco.py', '_base_/models/univip_r50.py',
    'benchmarks/mmsegmentation/../../univip_r18_demo.py'])
def test_a_config_inherits_ours_by_name(tmp_path, name):
    named = inherit(tmp_path, f'univip_mm::{name}').to_dict()
    assert named == Config.fromfile(CONFIGS / name).to_dict()


def test_configs_of_other_packages_are_inherited_as_before(tmp_path):
    config = inherit(tmp_path, 'mmpretrain::_base_/models/resnet50.py')
    assert config.model.backbone.depth == 50
    with pytest.raises(FileNotFoundError):
        inherit(tmp_path, './not_there.py')


def test_a_wrong_name_is_told_with_the_right_ones():
    with pytest.raises(FileNotFoundError, match='univip_r50_coco.py') as e:
        find_config('univip_mm::univip_r101_coco.py')
    assert 'univip_r101_coco.py' in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize('first', [
    'import mmengine.config', 'import univip_mm', ''])
def test_names_work_in_whatever_order_things_are_imported(tmp_path, first):
    # The second line is what univip_mm.pth does at Python's start.
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'univip_mm::univip_r50_coco.py'\n")
    said = subprocess.run(
        [sys.executable, '-c', f'''
{first}
{(ROOT / 'univip_mm.pth').read_text()}
from mmengine.config import Config
print(Config.fromfile({str(path)!r}).model.type)'''],
        env=dict(UNIVIP_HOST='none', PYTHONPATH=str(ROOT)),
        capture_output=True, text=True)
    assert said.stdout == 'UniVIP\n', said.stderr


def test_mim_finds_our_configs_by_name(tmp_path):
    # A stand-in for MIM, which is not installed here: its module of paths.
    (tmp_path / 'mim/utils').mkdir(parents=True)
    (tmp_path / 'mim/__init__.py').touch()
    (tmp_path / 'mim/utils/__init__.py').write_text(
        'from .utils import recursively_find\n')
    (tmp_path / 'mim/utils/utils.py').write_text(
        'def recursively_find(root, base_name, followlinks=False):\n'
        '    return [root + base_name]\n')
    said = subprocess.run(
        [sys.executable, '-c', '''
import _univip_mm_configs
from mim.utils import recursively_find
print(*recursively_find('/root/', 'univip_mm::univip_r50_coco.py'))
print(*recursively_find('/root/', 'other.py', followlinks=True))'''],
        env=dict(PYTHONPATH=f'{ROOT}:{tmp_path}'),
        capture_output=True, text=True).stdout.splitlines()
    assert said == [str(CONFIGS / 'univip_r50_coco.py'), '/root/other.py']
