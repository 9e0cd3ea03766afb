# Small version of the COCO recipe for a first try on one machine, with or
# without a GPU: ResNet-18, BN, a small projector, 3 epochs.
_base_ = './univip_r50_coco.py'

model = dict(  # SyncBN needs a GPU
    backbone=dict(depth=18, norm_cfg=dict(type='BN')),
    neck=dict(in_channels=512, hid_channels=1024, norm_cfg=dict(type='BN1d')),
    head=dict(predictor=dict(hid_channels=1024, norm_cfg=dict(type='BN1d'))))

train_dataloader = dict(batch_size=16, num_workers=2)

# lr 0.2 per 256 images, as in the COCO recipe.
optim_wrapper = dict(optimizer=dict(lr=0.2 * 16 / 256))
auto_scale_lr = dict(base_batch_size=16)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=0,
        end=3,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=3)

default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=1))
