# The COCO recipe in bfloat16 and channels_last, the fastest on recent GPUs.
# The losses stay in float32 (docs/decisions.md). bfloat16 needs no loss
# scaling. Tested on a GPU for one epoch of 7,680 synthetic images
# (docs/performance.md).
_base_ = './univip_r50_coco.py'

model = dict(data_preprocessor=dict(channels_last=True))
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
