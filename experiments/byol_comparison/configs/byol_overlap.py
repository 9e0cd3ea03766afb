# The host's BYOL on UniVIP's two scenes, whose overlap has K proposals. The
# host's loss uses the first two views. The instances are cut out but not used,
# so that the scenes are exactly UniVIP's.
_base_ = './univip.py'

model = dict(
    _delete_=True,
    type='BYOL',
    base_momentum={{_base_.model.base_momentum}},
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    head={{_base_.model.head}})
# The host's loss is twice UniVIP's scene-scene term. With half the learning
# rate, both take the same steps by this term. This also halves weight decay: a
# weight loses 0.6 % in 25 epochs instead of 1.2 %.
optim_wrapper = dict(optimizer=dict(lr=0.1))
