# ImageNet: linear classifiers on the stem and the four stages of the frozen
# backbone, 28 epochs.
#
# Protocol: Goyal et al. 2019 (https://arxiv.org/abs/1905.01235), with the
# values of ORL's configs/benchmarks/linear_classification/imagenet/
# r50_multihead_28ep.py: batch size 256, learning rate 0.01 divided by 10 after
# 8, 16 and 24 epochs, Nesterov momentum 0.9, weight decay 1e-4 except for norm
# layers.
# tools/benchmarks/classification/dist_train.sh sets the checkpoint.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_sgd_steplr_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['univip_mm.downstream'], allow_failed_imports=False)

stages = (0, 1, 2, 3, 4)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='univip_mm.ResNetWithStem',
        depth=50,
        out_indices=(0, 1, 2, 3),
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', checkpoint='')),
    head=dict(
        type='univip_mm.MultiStageLinearHead',
        num_classes=1000,
        stages=stages,
        norm_cfg=dict(type='SyncBN')))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    # Converts to float32. In uint8, values of Lighting above 255 would wrap.
    dict(type='Normalize', mean=[0., 0., 0.], std=[1., 1., 1.], to_rgb=False),
    # PCA noise of AlexNet, in BGR order.
    dict(
        type='Lighting',
        eigval=[55.4625, 4.7940, 1.1475],
        eigvec=[[-0.5836, -0.6948, 0.4203], [-0.5808, -0.0045, -0.8140],
                [-0.5675, 0.7192, 0.4009]]),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(
    optimizer=dict(lr=0.01, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0.))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[8, 16, 24], gamma=0.1)
]
train_cfg = dict(max_epochs=28, val_interval=2)
val_evaluator = dict(
    _delete_=True,
    type='MultiTasksMetric',
    task_metrics={
        f'stage{stage}': [dict(type='Accuracy', topk=(1, 5))]
        for stage in stages
    })
test_evaluator = val_evaluator
auto_scale_lr = dict(base_batch_size=256)
