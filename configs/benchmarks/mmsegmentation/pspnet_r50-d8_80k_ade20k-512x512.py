# ADE20K, PSPNet, 80 000 iterations of 16 images.
#
# Protocol: mmseg's own, as in MMSelfSup's benchmarks. The backbone is the
# plain ResNet that is pre-trained: mmseg's ResNetV1c has three convolutions in
# the place of its first, which no checkpoint of a ResNet fills.
# tools/benchmarks/mmsegmentation/dist_train.sh fills in the checkpoint.
_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(
        type='ResNet', init_cfg=dict(type='Pretrained', checkpoint='')))
