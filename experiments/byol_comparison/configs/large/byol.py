# The large version of ../byol.py.
_base_ = './univip.py'

model = dict(type='SceneBYOL')
crop = dict(scenes='independent', instances=False)
