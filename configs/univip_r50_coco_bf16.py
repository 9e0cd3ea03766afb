# The COCO recipe in bfloat16, compiled: the fastest on recent NVIDIA GPUs
# (docs/performance.md). The losses stay in float32 (docs/decisions.md).
# bfloat16 needs no loss scaling. The first iteration takes some minutes, in
# which PyTorch compiles; --cfg-options model.graph=cuda_graph starts at once
# and is slower, model.graph=None runs operation by operation.
_base_ = './univip_r50_coco.py'

model = dict(data_preprocessor=dict(channels_last=True), graph='inductor')
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
