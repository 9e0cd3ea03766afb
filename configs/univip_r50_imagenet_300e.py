# UniVIP, ResNet-50, ImageNet, 300 epochs, 4096 images per step.
# Paper: ImageNet linear top-1 74.2.
_base_ = './univip_r50_imagenet.py'

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=10,
        end=300,
        convert_to_iter_based=True)
]

train_cfg = dict(max_epochs=300)
