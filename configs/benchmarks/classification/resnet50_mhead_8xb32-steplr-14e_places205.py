# Places205: linear classifiers on all stages, 14 epochs.
#
# Protocol: as on ImageNet, with the values of ORL's configs/benchmarks/
# linear_classification/places205/r50_multihead_14ep.py: only crop and flip,
# learning rate divided by 10 after 4, 8 and 12 epochs. The dataset includes
# the lists `train_places205.csv` and `val_places205.csv`.
_base_ = './resnet50_mhead_8xb32-steplr-28e_in1k.py'

model = dict(head=dict(num_classes=205))

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
images = 'data/vision/torralba/deeplearning/images256/'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='Places205',
        data_root='data/Places205/',
        ann_file='trainvalsplit_places205/train_places205.csv',
        data_prefix=images,
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='Places205',
        data_root='data/Places205/',
        ann_file='trainvalsplit_places205/val_places205.csv',
        data_prefix=images,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[4, 8, 12], gamma=0.1)
]
train_cfg = dict(max_epochs=14)
