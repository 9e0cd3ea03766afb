# iNaturalist 2018: linear classifiers on all stages, 84 epochs.
#
# Protocol: as on ImageNet, with the values of ORL's configs/benchmarks/
# linear_classification/inaturalist18/r50_multihead_84ep.py: only crop and
# flip, learning rate divided by 10 after 24, 48 and 72 epochs. The lines of
# meta/*.txt are "file label", with the file relative to the folder.
_base_ = './resnet50_mhead_8xb32-steplr-28e_in1k.py'

model = dict(head=dict(num_classes=8142))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/inaturalist18/',
        ann_file='meta/train.txt',
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/inaturalist18/',
        ann_file='meta/val.txt',
        pipeline=test_pipeline))
test_dataloader = val_dataloader

param_scheduler = [
    dict(
        type='MultiStepLR', by_epoch=True, milestones=[24, 48, 72], gamma=0.1)
]
train_cfg = dict(max_epochs=84)
