# The large version of ../byol_overlap.py.
_base_ = './univip.py'

model = dict(type='SceneBYOL')
crop = dict(instances=False)
