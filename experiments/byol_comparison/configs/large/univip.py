# The large version, for a GPU: ResNet-18 of full width, scenes of 128 and
# instances of 64 pixels, batches of 128. The blur has the same size relative
# to a view as in the small version.
_base_ = '../univip.py'

model = dict(
    data_preprocessor=dict(
        scene1=dict(blur_kernel=9, blur_sigma=(0.1, 1.2)),
        scene2=dict(blur_kernel=9, blur_sigma=(0.1, 1.2))),
    backbone=dict(base_channels=64, stem_channels=64),
    neck=dict(in_channels=512, hid_channels=2048),
    head=dict(predictor=dict(hid_channels=2048)))

crop = dict(scene_size=128, instance_size=64)
train_dataloader = dict(
    batch_size=128, dataset=dict(data_root='data/quality_large/'))

auto_scale_lr = dict(enable=True)  # the learning rates are for 64 images
epochs = 40
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
