"""Tests that fine-tune Mask R-CNN and Faster R-CNN on the CPU."""
import json
import re

import pytest
import torch
from benchmark_runs import (
    BENCHMARKS,
    assert_loss_falls,
    assert_starts_from,
    bash,
)

pytestmark = pytest.mark.timeout(900)
ITERATIONS = 24

# ResNet-18, small images, few regions: about a minute on two cores.
COMMON = '''
_base_ = {base!r}
custom_imports = dict(imports=[{imports}], allow_failed_imports=False)
custom_hooks = [dict(type='WatchBenchmark')]
randomness = dict(seed=0)
size = dict(type='Resize', scale=(224, 224), keep_ratio=True)
load = dict(type='LoadImageFromFile')
boxes = dict(type='LoadAnnotations', with_bbox=True, with_mask={masks})
train = dict(
    type='CocoDataset', ann_file={ann_file!r},
    data_prefix=dict(img={images!r}), metainfo=dict(classes={classes!r}),
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=[load, boxes, size, dict(type='RandomFlip', prob=0.5),
              dict(type='PackDetInputs')])
val = dict(
    train, indices=8, test_mode=True,
    pipeline=[load, size, boxes, dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))])
train_dataloader = dict(
    batch_size={batch_size}, num_workers=0, persistent_workers=False,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(train, _delete_=True))
val_dataloader = dict(
    _delete_=True, batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False), dataset=val)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='CocoMetric', ann_file={ann_file!r},
    metric={metric!r})
test_evaluator = val_evaluator
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop',
                 max_iters={iterations}, val_interval={iterations})
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False,
                        begin=0, end=8)]
optim_wrapper = dict(optimizer=dict(lr=0.01))
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval={iterations}),
    logger=dict(interval=6))
log_processor = dict(by_epoch=False)
'''

MASK = COMMON + '''
model = dict(
    backbone=dict(depth=18),
    neck=dict(in_channels=[64, 128, 256, 512]),
    roi_head=dict(bbox_head=dict(num_classes={number}),
                  mask_head=dict(num_classes={number})),
    train_cfg=dict(rcnn=dict(sampler=dict(num=32)),
                   rpn_proposal=dict(max_per_img=200)),
    test_cfg=dict(rpn=dict(max_per_img=30), rcnn=dict(max_per_img=20)))
'''

FASTER_C4 = COMMON + '''
model = dict(
    backbone=dict(depth=18),
    rpn_head=dict(in_channels=256, feat_channels=256),
    roi_head=dict(
        shared_head=dict(depth=18),
        bbox_roi_extractor=dict(out_channels=256),
        bbox_head=dict(in_channels=512, num_classes={number})),
    train_cfg=dict(rcnn=dict(sampler=dict(num=32)),
                   rpn_proposal=dict(max_per_img=200)),
    test_cfg=dict(rpn=dict(max_per_img=30), rcnn=dict(max_per_img=20)))
'''
C4_IMPORTS = "'mmpretrain.models.utils.res_layer_extra_norm', "


def write(folder, template, base, data, imports='', **values):
    config = folder / 'config.py'
    config.write_text(
        template.format(
            base=str(BENCHMARKS / 'mmdetection' / base), imports=imports +
            "'benchmark_runs'", iterations=ITERATIONS,
            number=len(data['classes']), **data, **values))
    return config


def bbox_map(text):
    """Return the last ``coco/bbox_mAP`` in a log."""
    return float(re.findall(r'coco/bbox_mAP: (-?[\d.]+)', text)[-1])


@pytest.fixture(scope='module')
def mask_rcnn(tmp_path_factory, data, univip18):
    folder = tmp_path_factory.mktemp('mask_rcnn')
    config = write(folder, MASK, 'mask-rcnn_r50_fpn_1x_coco.py', data,
                   masks=True, batch_size=2, metric=['bbox', 'segm'])
    ended = bash('mmdet', 'dist_train', config, univip18, 0, '--work-dir',
                 folder / 'out')
    assert ended.returncode == 0, ended.stderr[-3000:]
    return config, folder / 'out', ended


def test_mask_rcnn_starts_from_checkpoint(mask_rcnn, univip18):
    assert_starts_from(mask_rcnn[1], univip18)
    assert (mask_rcnn[1] / 'backbone.pth').is_file()


def test_mask_rcnn_loss_falls(mask_rcnn):
    assert_loss_falls(mask_rcnn[1], ITERATIONS)


def test_mask_rcnn_reports_coco_metrics(mask_rcnn):
    _, _, ended = mask_rcnn
    assert 'coco/segm_mAP' in ended.stdout
    assert 0 <= bbox_map(ended.stdout) <= 1


def test_dist_test_reproduces_final_map(mask_rcnn):
    config, work_dir, trained = mask_rcnn
    ended = bash('mmdet', 'dist_test', config,
                 work_dir / f'iter_{ITERATIONS}.pth', 0, '--work-dir',
                 work_dir / 'test')
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert bbox_map(ended.stdout) == bbox_map(trained.stdout)


def test_second_run_reuses_backbone(mask_rcnn, univip18):
    config, work_dir, _ = mask_rcnn
    before = (work_dir / 'backbone.pth').stat()
    ended = bash('mmdet', 'dist_train', config, univip18, 0, '--work-dir',
                 work_dir, '--resume')
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (work_dir / 'backbone.pth').stat().st_ino == before.st_ino
    assert f'iter_{ITERATIONS}.pth' in ended.stdout  # resumed from


def test_faster_rcnn_c4_in_two_processes(tmp_path, data, univip18):
    """Stage 4 is in the detector's head, and SyncBN becomes BN."""
    config = write(tmp_path, FASTER_C4, 'faster-rcnn_r50_c4_24k_voc0712.py',
                   data, imports=C4_IMPORTS, masks=False, batch_size=2,
                   metric=['bbox'])
    out = tmp_path / 'out'
    ended = bash('mmdet', 'dist_train', config, univip18, 2, '--work-dir',
                 out)
    assert ended.returncode == 0, ended.stderr[-3000:]
    # All weights except the norm layer after stage 4.
    assert_starts_from(out, univip18, allowed=('norm.', ))
    assert torch.load(out / 'start.pth')['type'] == 'BatchNorm2d'
    assert_loss_falls(out, ITERATIONS)
    assert 0 <= bbox_map(ended.stdout) <= 1
    # Stage 4 is trained.
    content = torch.load(out / f'iter_{ITERATIONS}.pth', weights_only=False)
    start = torch.load(out / 'start.pth')['weights']
    name = 'layer4.1.conv2.weight'
    assert not torch.equal(
        content['state_dict'][f'roi_head.shared_head.{name}'], start[name])
    assert json.loads((out / 'losses.json').read_text())
