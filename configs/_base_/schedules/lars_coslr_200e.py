# As in the host's byol_resnet50_16xb256-coslr-200e_in1k: LARS, and a warm-up
# of 10 epochs (BYOL, App. C). Biases and normalization layers have no weight
# decay and no adaptation. ForeachLARS computes the host's LARS, but does not
# wait for the GPU.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='ForeachLARS', lr=4.8, momentum=0.9, weight_decay=1e-6),
    paramwise_cfg=dict(
        custom_keys={
            'bn': dict(decay_mult=0, lars_exclude=True),
            'bias': dict(decay_mult=0, lars_exclude=True),
            # Normalization layer of a ResNet's shortcut.
            'downsample.1': dict(decay_mult=0, lars_exclude=True),
        }))

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
        end=200,
        convert_to_iter_based=True)
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200)

# Used by --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=4096, enable=False)
