# What quality.py --large changes in the config of each arm, for a GPU:
# ResNet-18 of full width, scenes of 128 and instances of 64 pixels, batches of
# 128. The blur is of the same part of a view as in the small version.
model = dict(
    data_preprocessor=dict(
        scene1=dict(blur_kernel=9, blur_sigma=(0.1, 1.2)),
        scene2=dict(blur_kernel=9, blur_sigma=(0.1, 1.2))),
    backbone=dict(base_channels=64, stem_channels=64),
    neck=dict(in_channels=512, hid_channels=2048),
    head=dict(predictor=dict(hid_channels=2048)))

# Of the steps of the pipeline, by type; the host's takes its size from here.
view_sizes = dict(
    OverlapSceneCrop=dict(scene_size=128, instance_size=64),
    RandomResizedCrop=dict(scale=128))

train_dataloader = dict(
    batch_size=128, num_workers=5, persistent_workers=True)
auto_scale_lr = dict(enable=True)  # by the batch, of 64 images in the others
train_cfg = dict(max_epochs=40)
default_hooks = dict(
    checkpoint=dict(interval=5), view_sheet=dict(interval=0))
