# BYOL on UniVIP's two scenes, whose overlap has K proposals.
_base_ = './univip.py'

model = dict(type='SceneBYOL')
train_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadEncodedImage'),
        dict(_base_.crop, instances=False),
        {{_base_.pack}},
    ]))
