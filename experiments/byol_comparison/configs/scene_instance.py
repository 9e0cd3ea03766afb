# Scene-scene and scene-instance: UniVIP without optimal transport.
_base_ = './univip.py'

model = dict(loss_weights=dict(instance=0.0))
