# Semi-supervised ImageNet with the labels of 10 % of the images. Values of
# ORL's semi_classification/imagenet_10percent/.
_base_ = './resnet50_semi_4xb64-steplr-20e_in1k-1pct.py'

train_dataloader = dict(dataset=dict(ann_file='meta/train_10percent.txt'))
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
