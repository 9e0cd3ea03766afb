# The large version, for a GPU: ResNet-18 of full width, scenes of 128 and
# instances of 64 pixels, batches of 128, bfloat16. The blur has the same size
# relative to a view as in the small version.
_base_ = '../univip.py'

model = dict(
    data_preprocessor=dict(
        scene1=dict(blur_kernel=9, blur_sigma=(0.1, 1.2)),
        scene2=dict(blur_kernel=9, blur_sigma=(0.1, 1.2))),
    backbone=dict(base_channels=64, stem_channels=64),
    neck=dict(in_channels=512, hid_channels=2048),
    head=dict(predictor=dict(hid_channels=2048)))

train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(
        type='OverlapSceneCrop',
        num_instances=4,
        scene_size=128,
        instance_size=64,
        max_attempts=20,
        min_size=32,
        max_aspect_ratio=3.0,
        iou_thr=0.5),
    dict(
        type='PackInputs',
        meta_keys=('img_path', 'img_id', 'num_proposed', 'view_seed')),
]
data_root = 'data/quality_large/'
train_dataloader = dict(
    batch_size=128,
    num_workers=5,
    persistent_workers=True,
    dataset=dict(data_root=data_root, pipeline=train_pipeline))

optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.)
auto_scale_lr = dict(enable=True)  # the learning rates are for 64 images
epochs = 40
train_cfg = dict(max_epochs=epochs)
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
default_hooks = dict(
    checkpoint=dict(interval=5), view_sheet=dict(interval=0))
