# RetinaNet R50-FPN on COCO, 12 epochs.
#
# Protocol: as in mask-rcnn_r50_fpn_1x_coco.py. Backbone and FPN use SyncBN.
# The heads are shared by all levels and have no norm layers, as in MMSelfSup's
# RetinaNet benchmark.
# tools/benchmarks/mmdetection/dist_train.sh sets the checkpoint.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='')),
    neck=dict(norm_cfg=norm_cfg))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(640, 801, 32)],
        keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
