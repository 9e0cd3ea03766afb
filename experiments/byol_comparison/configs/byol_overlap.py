# The host's BYOL on UniVIP's two scenes, whose overlap holds K proposals. The
# host's loss takes the first two views; the instances are cut out and unused,
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
# The host's loss is twice UniVIP's scene-scene term: with half the learning
# rate both take the same steps by it, weight decay aside, which takes half as
# much of a weight: 0.6 % over the 25 epochs in place of 1.2 %.
optim_wrapper = dict(optimizer=dict(lr=0.1))
