import argparse
import os

import pytest
from mmengine.config import Config

from univip_mm.datasets import OverlapSceneCrop
from univip_mm.engine.config import (
    add_config_arguments,
    check_num_instances,
    load_config,
    parts_of_type,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


def load(*words):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    return load_config(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("model = dict(type='UniVIP', parts=[dict(size=1)])")
    return path


def test_load_config_applies_options(path):
    cfg = load(path, '--cfg-options', 'model.type=BYOL', 'new.key=[3,4]',
               'model.parts.0.size=5')
    assert cfg.model == dict(type='BYOL', parts=[dict(size=5)])
    assert cfg.new.key == [3, 4]


@pytest.mark.parametrize('key', [
    'model.parts.1.size', 'model.parts.x.size', 'model.type.name'])
def test_load_config_names_option_that_does_not_fit(path, key):
    with pytest.raises(ValueError, match=f'--cfg-options {key}: ') as e:
        load(path, '--cfg-options', f'{key}=5')
    assert '\n' not in str(e.value) and 'mine.py' in str(e.value)


def test_load_config_chooses_work_dir(path):
    assert load(path).work_dir == './work_dirs/mine'
    assert load(path, '--cfg-options', 'work_dir=a').work_dir == 'a'
    assert load(path, '--cfg-options', 'work_dir=a', '--work-dir',
                'b').work_dir == 'b'


def test_load_config_passes_launcher(path):
    assert load(path).launcher == 'none'
    assert load(path, '--launcher', 'slurm').launcher == 'slurm'


def test_load_config_sets_local_rank(path, monkeypatch):
    load(path, '--local-rank', '3')
    assert os.environ['LOCAL_RANK'] == '0'  # the launcher's value wins
    monkeypatch.delenv('LOCAL_RANK')
    load(path, '--local_rank', '3')
    assert os.environ['LOCAL_RANK'] == '3'


def of_instances(cropped, fused):
    crop = dict(type='OverlapSceneCrop', **cropped)
    data = dict(type='ConcatDataset', datasets=[dict(pipeline=[crop])])
    return Config(
        dict(model=dict(fusion_neck=fused),
             train_dataloader=dict(dataset=data)))


def test_num_instances_must_match_fusion():
    three = dict(num_instances=3)
    check_num_instances(of_instances(three, three))
    check_num_instances(of_instances({}, {}))
    with pytest.raises(
            ValueError, match=r'train_dataloader\.dataset\.datasets\.0\.'
            r'pipeline\.0\.num_instances is 3.*fusion_neck\.num_instances '
            'is 4'):
        check_num_instances(of_instances(three, {}))
    with pytest.raises(ValueError, match='is 4.*is 3'):
        check_num_instances(of_instances({}, three))


def test_num_instances_ignores_other_models():
    check_num_instances(
        Config(dict(model=dict(type='BYOL'), train_dataloader=dict())))


def test_parts_of_type_finds_nested_parts():
    found = parts_of_type(
        dict(a=[dict(type='X', b=dict(type='X')), dict(type='Y')]), 'X', 'cfg')
    assert [path for path, _ in found] == ['cfg.a.0', 'cfg.a.0.b']


def test_parts_of_type_finds_scopes_and_classes():
    node = [dict(type='univip_mm.UniVIP'), dict(type=OverlapSceneCrop),
            dict(type='NotUniVIP'), dict()]
    assert [key for key, _ in parts_of_type(node, 'UniVIP', 'x')] == ['x.0']
    assert [key for key, _ in parts_of_type(node, 'OverlapSceneCrop', 'x')
            ] == ['x.1']
