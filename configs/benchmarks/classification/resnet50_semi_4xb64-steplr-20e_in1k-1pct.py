# Semi-supervised ImageNet: fine-tuning of the whole network with the labels of
# 1 % of the images, 20 epochs.
#
# Protocol: values of ORL's configs/benchmarks/semi_classification/
# imagenet_1percent/: batch size 256, learning rate times 0.2 after 12 and 16
# epochs. ORL searches three learning rates (0.1, 0.01, 0.001) and three
# multipliers of the head's learning rate (1, 10, 100). This config has the
# middle value of both. For the others:
#   --cfg-options optim_wrapper.optimizer.lr=0.001 \
#       optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult=100
# meta/train_1percent.txt is SimCLR's list with lines "folder/file label".
# tools/benchmarks/classification/dist_train.sh sets the checkpoint.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_sgd_steplr_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='')))

train_dataloader = dict(dataset=dict(ann_file='meta/train_1percent.txt'))

optim_wrapper = dict(
    optimizer=dict(lr=0.01, weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.))))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[12, 16], gamma=0.2)
]
train_cfg = dict(max_epochs=20, val_interval=20)
auto_scale_lr = dict(base_batch_size=256)
