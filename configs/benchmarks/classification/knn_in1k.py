# ImageNet: k-NN classification of the frozen features.
#
# Protocol: Wu et al. 2018 (https://arxiv.org/abs/1805.01978, Sec. 3.4), with
# the values of k of MMSelfSup's test_knn.py.
# Trains nothing: run tools/benchmarks/classification/dist_test.sh.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['univip_mm.downstream'], allow_failed_imports=False)

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='')),
    neck=None,
    head=dict(_delete_=True, type='univip_mm.FeatureHead'))
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='ImageNet',
                data_root='data/imagenet',
                split=split,
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(
                        type='ResizeEdge',
                        scale=256,
                        edge='short',
                        backend='pillow'),
                    dict(type='CenterCrop', crop_size=224),
                    dict(type='univip_mm.SetSplit', split=split),
                    dict(type='PackInputs', meta_keys=('img_path', 'split')),
                ]) for split in ('train', 'val')
        ]))
test_evaluator = dict(type='univip_mm.KNNAccuracy')
test_cfg = dict()
