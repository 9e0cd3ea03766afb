import json
import os
import subprocess

import pytest
import torch
from tiny import (
    PYTHONPATH,
    ROOT,
    error_of,
    free_port,
    run_tool,
    write_config,
)
from warm_python import warm_python

TEST = '''
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs', meta_keys=('img_path', 'img_id', 'split'))]
test_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(type='CocoMultiLabel', data_root={root!r},
                 ann_file='train.json', data_prefix=dict(img_path='images'),
                 split=split, part=part, pipeline=test_pipeline)
            for split, part in dict(train=(0, .5), val=(.5, 1)).items()]))
test_evaluator = dict(type='MultiLabelProbe')
test_cfg = dict(type='TestLoop')
'''


@pytest.fixture
def config(coco_folder):
    """Write a tiny config with a test set that has annotations."""
    path = coco_folder / 'train.json'
    content = json.loads(path.read_text())
    content['categories'] = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    content['annotations'] = [
        dict(id=i, image_id=image['id'], category_id=1 + i % 2,
             bbox=[0, 0, 9, 9], area=81, iscrowd=0)
        for i, image in enumerate(content['images'])
    ]
    path.write_text(json.dumps(content))
    config = write_config(coco_folder)
    config.write_text(config.read_text() +
                      TEST.format(root=str(coco_folder)))
    return config


def metrics_of(config, *arguments):
    out = config.parent / 'metrics.json'
    run_tool('test', config, *arguments, '--work-dir', config.parent / 'out',
             '--out', out)
    return json.loads(out.read_text())


def test_test_evaluates_checkpoint_and_untrained_network(config):
    run_tool('train', config, '--work-dir', config.parent / 'out',
             '--cfg-options', 'train_cfg.max_epochs=1')
    checkpoint = config.parent / 'out' / 'epoch_1.pth'
    content = torch.load(checkpoint, weights_only=False)
    content['state_dict']['backbone.conv1.weight'].fill_(torch.nan)
    torch.save(content, checkpoint)
    metrics = metrics_of(config)
    assert 'probe/knn_mAP' in metrics and 'probe/linear_mAP' in metrics
    assert all(0 <= value <= 100 for value in metrics.values())
    # Only the checkpoint has NaN, so its weights were loaded.
    with pytest.raises(ValueError, match='not finite'):
        metrics_of(config, checkpoint)


def test_test_is_deterministic(config):
    assert metrics_of(config) == metrics_of(config)


def test_test_replaces_sync_bn_on_cpu(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert 'probe/knn_mAP' in metrics_of(
        config, '--cfg-options', 'model.backbone.norm_cfg.type=SyncBN')


# Mistakes of the user.

def test_error_names_missing_checkpoint(config):
    message = error_of('test', config, 'no/epoch_9.pth')
    assert "there is no checkpoint 'no/epoch_9.pth'" in message


def test_error_names_config_without_test_dataloader(coco_folder):
    path = write_config(coco_folder)
    message = error_of('test', path)
    assert str(path) in message and 'has no test_dataloader' in message
    assert 'univip_r18_demo.py' in message


def test_error_names_missing_config():
    assert "'no/config.py'" in error_of('test', 'no/config.py')


def test_error_names_missing_data_file(config):
    (config.parent / 'train.json').unlink()
    message = error_of('test', config, '--work-dir', config.parent / 'out')
    assert str(config.parent / 'train.json') in message


def test_sync_bn_on_several_cpu_processes_is_refused(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    message = error_of('test', config, '--launcher', 'pytorch',
                       '--cfg-options', 'model.neck.norm_cfg.type=SyncBN')
    assert 'model.neck.norm_cfg.type=BN1d' in message


def test_two_processes_equal_one_process(config, coco_folder):
    alone = coco_folder / 'alone.json'
    run_tool('test', config, '--work-dir', coco_folder / 'out', '--out', alone)
    ended = subprocess.run(
        [warm_python(), '-m', 'torch.distributed.run', '--nproc-per-node',
         '2', '--master-port', free_port(), str(ROOT / 'tools/test.py'),
         str(config), '--launcher', 'pytorch', '--work-dir',
         str(coco_folder / 'out'), '--out', str(coco_folder / 'two.json')],
        capture_output=True, text=True, timeout=240,
        env={**os.environ, 'PYTHONPATH': PYTHONPATH})
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert json.loads((coco_folder / 'two.json').read_text()) == (
        pytest.approx(json.loads(alone.read_text()), abs=1e-3))
