# The large version of the scene-scene and scene-instance terms.
_base_ = './univip.py'

model = dict(loss_weights=dict(instance=0.0))
