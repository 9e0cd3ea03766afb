# Pascal VOC 2012 with the added annotations, FCN, 20 000 iterations of 16
# images.
#
# Protocol: mmseg's own, as in MMSelfSup's benchmarks. The backbone is the
# plain ResNet that is pre-trained: mmseg's ResNetV1c has three convolutions in
# the place of its first, which no checkpoint of a ResNet fills.
# tools/benchmarks/mmsegmentation/dist_train.sh fills in the checkpoint.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(
        type='ResNet', init_cfg=dict(type='Pretrained', checkpoint='')))
