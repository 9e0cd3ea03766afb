# Mask R-CNN R50-C4 on COCO, 12 epochs.
#
# Protocol: MoCo (https://arxiv.org/abs/1911.05722, Sec. 4.2): all layers are
# trained, with SyncBN, one extra norm layer after stage 4, and a shorter side
# of 640 to 800 pixels. In a C4 detector, stage 4 is the head of each region;
# `shared_head` loads stage 4 from the same checkpoint.
# tools/benchmarks/mmdetection/dist_train.sh sets the checkpoint.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py'
# Registers ResLayerExtraNorm in the scope of mmdet.
custom_imports = dict(
    imports=['mmpretrain.models.utils.res_layer_extra_norm'],
    allow_failed_imports=False)

norm_cfg = dict(type='SyncBN', requires_grad=True)
pretrained = dict(type='Pretrained', checkpoint='')
model = dict(
    # Values of the pre-training; the base config has Caffe's values.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=pretrained),
    roi_head=dict(
        shared_head=dict(
            type='ResLayerExtraNorm',
            norm_cfg=norm_cfg,
            norm_eval=False,
            style='pytorch',
            init_cfg=pretrained)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(640, 801, 32)],
        keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
