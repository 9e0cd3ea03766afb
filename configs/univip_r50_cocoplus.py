# UniVIP, ResNet-50, COCO+ (train2017 and unlabeled2017), 800 epochs, 8 x 64.
# Paper: ImageNet linear top-1 63.0 (BYOL 59.6).
_base_ = './univip_r50_coco.py'

train_dataloader = dict(
    dataset=dict(
        ann_file=[
            'annotations/instances_train2017.json',
            'annotations/image_info_unlabeled2017.json'
        ],
        proposal_file=[
            'proposals/train2017.npz', 'proposals/unlabeled2017.npz'
        ],
        data_prefix=dict(img_path=['train2017/', 'unlabeled2017/'])))
