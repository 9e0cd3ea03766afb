# Scene-scene and scene-instance terms: UniVIP without optimal transport.
_base_ = './univip.py'

model = dict(loss_weights=dict(instance=0.0))
