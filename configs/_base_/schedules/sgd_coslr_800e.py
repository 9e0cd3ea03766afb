# UniVIP, Sec. 4.1, as in ORL: lr 0.2 per 256 images, 512 images per step.
# NonFiniteHook switches SGD to its fused kernel, if PyTorch has one.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=1e-4))

# Linear warm-up over 4 epochs, as the README of the independent reproduction
# reports from the paper, then a cosine to 0. Stepping per iteration is our
# decision (docs/decisions.md); ORL steps per epoch.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=4,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.,
        by_epoch=True,
        begin=4,
        end=800,
        convert_to_iter_based=True)
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=800)

# Used by --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=512, enable=False)
