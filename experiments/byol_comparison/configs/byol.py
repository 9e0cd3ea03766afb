# BYOL on two independent random crops.
_base_ = './univip.py'

model = dict(type='SceneBYOL')
crop = dict(scenes='independent', instances=False)
