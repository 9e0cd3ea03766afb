# The large version of the scene-scene and instance-instance terms.
_base_ = './univip.py'

model = dict(loss_weights=dict(scene_instance=0.0))
