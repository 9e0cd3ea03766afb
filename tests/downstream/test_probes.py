"""Tests that run linear classifiers, k-NN and SVMs on a UniVIP checkpoint."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
from benchmark_runs import (
    BENCHMARKS,
    assert_loss_falls,
    assert_starts_from,
    bash,
)
from PIL import Image

pytestmark = pytest.mark.timeout(900)
CLASSIFICATION = BENCHMARKS / 'classification'

LINEAR = '''
_base_ = {base!r}
custom_imports = dict(imports=['univip_mm.downstream', 'benchmark_runs'],
                      allow_failed_imports=False)
custom_hooks = [dict(type='WatchBenchmark')]
randomness = dict(seed=0)
model = dict(
    backbone=dict(depth=18),
    head=dict(num_classes=2, in_channels=(64, 64, 128, 256, 512)))
data = dict(type='CustomDataset', data_prefix={images!r},
            ann_file={ann_file!r}, classes=['dark', 'bright'])
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    # The same crop in each epoch, to overfit 32 images.
    dataset=dict(data, _delete_=True, pipeline={{{{_base_.test_pipeline}}}}))
val_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(data, _delete_=True, indices=16,
                 pipeline={{{{_base_.test_pipeline}}}}))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=8, val_interval=8)
# A small learning rate suffices for about 9000 inputs.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
val_evaluator = dict(task_metrics=dict(_delete_=True, **{{
    f'stage{{i}}': [dict(type='Accuracy')] for i in range(5)}}))
test_evaluator = val_evaluator
'''

PROBE = '''
_base_ = {base!r}
model = dict(backbone=dict(depth=18))
test_dataloader = dict(
    batch_size=8, num_workers=0, dataset=dict(
        _delete_=True, type='ConcatDataset', datasets=[
            dict(type='univip_mm.CocoMultiLabel', ann_file={ann_file!r},
                 data_prefix=dict(img_path={images!r}), split=split,
                 part=part, pipeline=[
                     dict(type='LoadImageFromFile'),
                     dict(type='Resize', scale=(224, 224)),
                     dict(type='PackInputs', meta_keys=(
                         'img_path', 'split', 'gt_label_difficult'))])
            for split, part in (('train', (0, 0.5)), ('val', (0.5, 1)))]))
{more}
'''


def metrics(ended):
    """Return the metrics in the last line of the evaluation."""
    assert ended.returncode == 0, ended.stderr[-3000:]
    line = [x for x in ended.stdout.splitlines() if 'Epoch(test)' in x][-1]
    return {name: float(value) for name, value in
            re.findall(r'(\S+): (-?[\d.]+|nan)', line)}


@pytest.fixture(scope='module')
def two_classes(tmp_path_factory, data):
    """Return a CustomDataset list that labels images as dark or bright."""
    content = json.loads(Path(data['ann_file']).read_text())
    names = [x['file_name'] for x in content['images'][:32]]
    brightness = [
        np.asarray(Image.open(data['images'] + name).convert('L')).mean()
        for name in names]
    lines = [f'{name} {int(value > np.median(brightness))}'
             for name, value in zip(names, brightness)]
    path = tmp_path_factory.mktemp('list') / 'list.txt'
    path.write_text('\n'.join(lines))
    return str(path)


def test_multi_stage_linear_loss_falls(tmp_path, data, univip18, two_classes):
    config = tmp_path / 'config.py'
    config.write_text(LINEAR.format(
        base=str(CLASSIFICATION / 'resnet50_mhead_8xb32-steplr-28e_in1k.py'),
        images=data['images'], ann_file=two_classes))
    out = tmp_path / 'out'
    ended = bash('mmpretrain', 'dist_train', config, univip18, 2,
                 '--work-dir', out)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_starts_from(out, univip18)
    assert_loss_falls(out, 16)
    for stage in range(5):
        assert f'stage{stage}_accuracy/top1' in ended.stdout

    ended = bash('mmpretrain', 'dist_test', config, out / 'epoch_8.pth', 0,
                 '--work-dir', tmp_path / 'test')
    assert 0 <= metrics(ended)['stage4_accuracy/top1'] <= 100


def probe(tmp_path, data, base, checkpoint, more, gpus=0, **changes):
    config = tmp_path / 'config.py'
    config.write_text(PROBE.format(
        base=str(CLASSIFICATION / base), more=more, **{**data, **changes}))
    return bash('mmpretrain', 'dist_test', config, checkpoint, gpus,
                '--work-dir', tmp_path / 'out')


def test_probe_coco_reports_metrics(tmp_path, data, univip18):
    ended = probe(tmp_path, data, 'probe_coco.py', univip18, '')
    found = metrics(ended)
    for name in ('knn_mAP', 'linear_mAP', 'chance_mAP'):
        assert 0 < found[f'probe/{name}'] <= 100


@pytest.fixture
def frequent(tmp_path, data):
    """Return the json reduced to the two most frequent classes."""
    content = json.loads(Path(data['ann_file']).read_text())
    images = {}
    for annotation in content['annotations']:
        images.setdefault(annotation['category_id'], set()).add(
            annotation['image_id'])
    kept = sorted(images, key=lambda x: -len(images[x]))[:2]
    path = tmp_path / 'frequent.json'
    path.write_text(json.dumps(dict(
        content,
        categories=[x for x in content['categories'] if x['id'] in kept],
        annotations=[x for x in content['annotations']
                     if x['category_id'] in kept])))
    return str(path)


def test_svm_voc07_in_two_processes(tmp_path, data, univip18, frequent):
    ended = probe(
        tmp_path, data, 'svm_voc07.py', univip18,
        'test_evaluator = dict(shots=(1, 2), samples=2, n_jobs=1)', gpus=2,
        ann_file=frequent)
    found = metrics(ended)
    for name in ('mAP', 'mAP_k=1', 'mAP_k=2', 'mAP_low_shot'):
        assert 0 < found[f'svm/{name}'] <= 100


def test_dist_test_rejects_pretraining_checkpoint(tmp_path, univip18):
    ended = bash('mmdet', 'dist_test',
                 BENCHMARKS / 'mmdetection' / 'mask-rcnn_r50_fpn_1x_coco.py',
                 univip18, 0, '--work-dir', tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith('error: ')
    assert 'train with dist_train.sh' in ended.stderr


def test_dist_train_reports_other_depth_in_one_line(tmp_path, univip18):
    ended = bash('mmdet', 'dist_train',
                 BENCHMARKS / 'mmdetection' / 'mask-rcnn_r50_fpn_1x_coco.py',
                 univip18, 0, '--work-dir', tmp_path)
    assert ended.returncode == 1
    errors = [x for x in ended.stderr.splitlines() if x.startswith('error')]
    assert len(errors) == 1
    assert 'the checkpoint is a ResNet-18, the config a ResNet-50' in errors[0]
