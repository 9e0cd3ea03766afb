# ImageNet with the labels of 1 % of the images: the whole network is
# fine-tuned for 20 epochs.
#
# Protocol: the values of ORL's configs/benchmarks/semi_classification/
# imagenet_1percent/: batch 256, learning rate times 0.2 after 12 and 16
# epochs. ORL has a config for each of three learning rates (0.1, 0.01, 0.001)
# and three factors of the classifier's (1, 10, 100). Here is the middle of
# both, and the others are
#   --cfg-options optim_wrapper.optimizer.lr=0.001 \
#       optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult=100
# meta/train_1percent.txt: SimCLR's list, of "folder/file number" lines.
# tools/benchmarks/classification/dist_train.sh fills in the checkpoint.
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
