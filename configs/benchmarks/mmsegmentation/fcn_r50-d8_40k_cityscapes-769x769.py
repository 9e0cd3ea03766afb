# Cityscapes, FCN, 40 000 iterations of 8 images.
#
# Protocol: mmseg's own, as in MMSelfSup's benchmarks. The backbone is the
# plain ResNet that is pre-trained: mmseg's ResNetV1c has three convolutions in
# the place of its first, which no checkpoint of a ResNet fills.
# tools/benchmarks/mmsegmentation/dist_train.sh fills in the checkpoint.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py'

model = dict(
    pretrained=None,
    backbone=dict(
        type='ResNet', init_cfg=dict(type='Pretrained', checkpoint='')))
