# UniVIP, ResNet-50, COCO train2017, 800 epochs, 8 GPUs x 64 images.
# Paper: ImageNet linear top-1 60.2 (BYOL 57.8).
_base_ = [
    './_base_/models/univip_r50.py',
    './_base_/datasets/coco_univip.py',
    './_base_/schedules/sgd_coslr_800e.py',
    './_base_/default_runtime.py',
]
