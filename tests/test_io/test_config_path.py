import pytest
from mmengine.config import Config
from tiny import CONFIGS

from univip_mm import config_path

LINE = "_base_ = __import__('univip_mm').config_path({!r})\n"


@pytest.mark.parametrize('name', [
    'univip_r50_coco.py', '_base_/models/univip_r50.py',
    'benchmarks/classification/svm_voc07.py'])
def test_config_elsewhere_inherits_ours_by_one_line(tmp_path, name):
    path = tmp_path / 'mine.py'
    path.write_text(LINE.format(name))
    inherited = Config.fromfile(path).to_dict()
    assert inherited == Config.fromfile(CONFIGS / name).to_dict()


def test_config_path_names_the_known_configs():
    with pytest.raises(FileNotFoundError, match='univip_r50_coco.py') as e:
        config_path('univip_r101_coco.py')
    assert 'univip_r101_coco.py' in str(e.value) and '\n' not in str(e.value)
