# Pascal VOC 2007: linear SVMs on frozen features, fitted on trainval, scored
# on test; also low-shot, with 1 to 96 images per class.
#
# Protocol: Goyal et al. 2019 (https://arxiv.org/abs/1905.01235, Sec. 6.1 and
# 6.2), with the values of the scripts of ORL and MMSelfSup: images resized to
# 224 x 224, last stage pooled to 2 x 2 x 2048, costs 1, 10 and 100.
# Trains nothing by gradient descent: run
# tools/benchmarks/classification/dist_test.sh.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['univip_mm.downstream'], allow_failed_imports=False)

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='')),
    neck=None,
    head=dict(
        _delete_=True,
        type='univip_mm.FeatureHead',
        pool=dict(kernel_size=6, stride=1)))
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

test_dataloader = dict(
    batch_size=32,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='VOC',
                data_root='data/VOCdevkit/VOC2007',
                split=part,
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='Resize', scale=(224, 224), backend='pillow'),
                    dict(type='univip_mm.SetSplit', split=split),
                    dict(
                        type='PackInputs',
                        meta_keys=('img_path', 'split',
                                   'gt_label_difficult')),
                ]) for part, split in (('trainval', 'train'), ('test', 'val'))
        ]))
test_evaluator = dict(type='univip_mm.LinearSVMProbe')
test_cfg = dict()
