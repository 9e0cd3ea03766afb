# BYOL on UniVIP's two scenes, whose overlap has K proposals.
_base_ = './univip.py'

model = dict(type='SceneBYOL')
crop = dict(instances=False)
