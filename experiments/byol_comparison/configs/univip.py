# UniVIP at a size that allows a comparison with BYOL on 2 cores: ResNet-18 of
# a quarter of its width, scenes of 64 and instances of 32 pixels, 50 epochs.
# docs/results_appendix.md has the reason for each value. All other values are
# the demo's. The experiment adds the folders, the seed and the pixel cache.
_base_ = '../../../configs/univip_r18_demo.py'

model = dict(
    base_momentum=0.003,
    data_preprocessor=dict(
        channels_last=True,
        scene1=dict(blur_kernel=5),
        scene2=dict(blur_kernel=5)),
    backbone=dict(base_channels=16, stem_channels=16),
    neck=dict(in_channels=128, hid_channels=512, out_channels=128),
    head=dict(
        predictor=dict(in_channels=128, hid_channels=512, out_channels=128)),
    fusion_neck=dict(in_channels=128, out_channels=128))

# The experiment replaces `crop` in the pipeline with that of the method.
crop = dict(
    type='MethodViews',
    num_instances=4,
    scene_size=64,
    instance_size=32,
    max_attempts=20,
    min_size=32,
    max_aspect_ratio=3.0,
    iou_thr=0.5)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='data/quality/',
        pipeline=[
            dict(type='LoadEncodedImage'),
            crop,
            dict(
                type='PackInputs',
                meta_keys=('img_path', 'img_id', 'num_proposed',
                           'view_seed')),
        ]))

# Initial weights; the experiment adds the seed.
start = dict(type='SameStartHook', zero_sum=True)
epochs = 50
optim_wrapper = dict(optimizer=dict(lr=0.2))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=2,
        end=epochs,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=epochs)
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=1),
    view_sheet=dict(interval=0),
    effective_rank=dict(num_images=0))
