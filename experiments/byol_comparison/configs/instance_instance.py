# Scene-scene and instance-instance terms: UniVIP without the fusion.
_base_ = './univip.py'

model = dict(loss_weights=dict(scene_instance=0.0))
