# COCO detection and instance segmentation, R50-C4, 12 epochs.
#
# Protocol: MoCo's (https://arxiv.org/abs/1911.05722, Sec. 4.2): every layer is
# trained, batch normalisation is synchronised, one more norm follows stage 4,
# and the shorter side is 640 to 800 pixels. Stage 4 is the head of each region
# here and comes from the same checkpoint, into `shared_head`.
# tools/benchmarks/mmdetection/dist_train.sh fills in the checkpoint.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py'
# ResLayerExtraNorm, of scope mmdet.
custom_imports = dict(
    imports=['mmpretrain.models.utils.res_layer_extra_norm'],
    allow_failed_imports=False)

norm_cfg = dict(type='SyncBN', requires_grad=True)
pretrained = dict(type='Pretrained', checkpoint='')
model = dict(
    # The pre-training's, not Caffe's.
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
