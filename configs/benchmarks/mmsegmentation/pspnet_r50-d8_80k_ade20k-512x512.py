# PSPNet on ADE20K, 80 000 iterations with 16 images.
#
# Protocol: mmseg's own schedule, as in MMSelfSup's benchmarks. The backbone is
# a plain ResNet like the pre-trained one. mmseg's default ResNetV1c has three
# convolutions in its stem, for which a ResNet checkpoint has no weights.
# tools/benchmarks/mmsegmentation/dist_train.sh sets the checkpoint.
_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(
        type='ResNet', init_cfg=dict(type='Pretrained', checkpoint='')))
