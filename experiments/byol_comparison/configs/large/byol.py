# The large version of ../byol.py.
_base_ = './univip.py'

model = dict(type='SceneBYOL')
train_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadEncodedImage'),
        dict(_base_.crop, scenes='independent', instances=False),
        {{_base_.pack}},
    ]))
