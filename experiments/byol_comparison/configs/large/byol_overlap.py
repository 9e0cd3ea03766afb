# The large version of the host's BYOL on UniVIP's two scenes; the reasons are
# in ../byol_overlap.py.
_base_ = './univip.py'

model = dict(
    _delete_=True,
    type='BYOL',
    base_momentum={{_base_.model.base_momentum}},
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    head={{_base_.model.head}})
optim_wrapper = dict(optimizer=dict(lr=0.1))
