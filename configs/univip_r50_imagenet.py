# UniVIP, ResNet-50, ImageNet, 200 epochs, 4096 images per step (64 GPUs x 64).
# Paper: ImageNet linear top-1 73.1 (BYOL 70.6).
# tools/generate_proposals.py writes the list of images for a folder without a
# json file.
_base_ = [
    './_base_/models/univip_r50.py',
    './_base_/datasets/coco_univip.py',
    './_base_/schedules/lars_coslr_200e.py',
    './_base_/default_runtime.py',
]

train_dataloader = dict(
    dataset=dict(
        data_root='data/imagenet/',
        ann_file='proposals/train.images.json',
        proposal_file='proposals/train.npz',
        data_prefix=dict(img_path='train/')))
