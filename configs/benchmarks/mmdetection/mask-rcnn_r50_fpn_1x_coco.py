# Mask R-CNN R50-FPN on COCO, 12 epochs.
#
# Protocol: MoCo (https://arxiv.org/abs/1911.05722, Sec. 4.2): all layers are
# trained, with SyncBN in the backbone and in the new layers (FPN and heads),
# and a shorter side of 640 to 800 pixels. The values equal those of
# MMSelfSup's mask-rcnn_r50_fpn_ms-1x_coco.py.
# tools/benchmarks/mmdetection/dist_train.sh sets the checkpoint.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='')),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        # mmdet's default head has two FC layers without norm layers.
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)))

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
