# The large version of the host's BYOL on two random crops.
_base_ = './byol_overlap.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=2,
        transforms=[[
            dict(
                type='RandomResizedCrop',
                scale=128,
                interpolation='bicubic',
                backend='cv2')
        ]]),
    dict(type='PackInputs', meta_keys=('img_path', 'img_id', 'view_seed')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
