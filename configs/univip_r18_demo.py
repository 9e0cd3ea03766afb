# Demo that trains in minutes on two CPU cores: ResNet-18 of half width, scenes
# of 64 pixels, instances of 32 pixels, and the data set of
# tools/demo/make_data.py. Most values differ from the paper's.
_base_ = './univip_r18_coco.py'

model = dict(
    base_momentum=0.02,  # a short training needs a faster target
    # Scenes and blur have about a third of the recipe's size.
    data_preprocessor=dict(
        scene1=dict(blur_prob=0.5, blur_sigma=(0.1, 0.6)),
        scene2=dict(blur_sigma=(0.1, 0.6))),
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=256))

data_root = 'data/demo/'
# Half of the paper's 64 pixels, for images of half the size of COCO's.
proposal_rules = dict(min_size=32, max_aspect_ratio=3.0, iou_thr=0.5)

train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(
        type='OverlapSceneCrop',
        num_instances=4,
        scene_size=64,
        instance_size=32,
        max_attempts=20,
        **proposal_rules),
    dict(
        type='PackInputs',
        meta_keys=('img_path', 'img_id', 'num_proposed', 'view_seed')),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        proposal_file='proposals/train.npz',
        data_prefix=dict(img_path='train/'),
        pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=0.1))
auto_scale_lr = dict(base_batch_size=32)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=0,
        end=14,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=14)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=7),
    effective_rank=dict(num_images=256))

# tools/test.py fits k-NN and linear multi-label classifiers on frozen features
# of the training images and scores them on the validation images.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=0.5),
    dict(type='PackInputs', meta_keys=('img_path', 'img_id', 'split')),
]
test_dataloader = dict(
    batch_size=50,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='CocoMultiLabel',
                data_root=data_root,
                ann_file=f'annotations/{split}.json',
                data_prefix=dict(img_path=f'{split}/'),
                split=split,
                pipeline=test_pipeline) for split in ('train', 'val')
        ]))
test_evaluator = dict(type='MultiLabelProbe')
test_cfg = dict(type='TestLoop')
