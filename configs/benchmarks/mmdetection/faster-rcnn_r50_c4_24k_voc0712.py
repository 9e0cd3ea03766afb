# Faster R-CNN R50-C4 on Pascal VOC: trained on trainval of 2007 and 2012 for
# 24 000 iterations with 16 images, tested on test2007.
#
# Protocol: MoCo (https://arxiv.org/abs/1911.05722, Sec. 4.2.1): as in
# mask-rcnn_r50_c4_1x_coco.py, with the learning rate divided by 10 after
# 18 000 and 22 000 iterations. mmdet's base config already has the scales, 480
# to 800 pixels. AP is the mean over ten IoU thresholds, as on COCO; AP50 and
# AP75 are also reported.
# tools/benchmarks/mmdetection/dist_train.sh sets the checkpoint.
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py'
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

# The metainfo of the datasets differs in dataset_type (VOC2007, VOC2012).
train_dataloader = dict(dataset=dict(ignore_keys=['dataset_type']))
val_evaluator = dict(iou_thrs=[step / 100 for step in range(50, 100, 5)])
test_evaluator = val_evaluator

train_cfg = dict(max_iters=24000, val_interval=4000)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(
        type='MultiStepLR',
        begin=0,
        end=24000,
        by_epoch=False,
        milestones=[18000, 22000],
        gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=4000))
