data_root = 'data/coco/'

# The three rules for proposals (UniVIP, Sec. 4.1). The proposal file must be
# generated with the same rules; otherwise the data set raises an error.
proposal_rules = dict(min_size=64, max_aspect_ratio=3.0, iou_thr=0.5)

train_pipeline = [
    # Faster equivalent of LoadImageFromFile (docs/performance.md).
    dict(type='LoadEncodedImage'),
    dict(
        type='OverlapSceneCrop',
        num_instances=4,  # K (UniVIP, Sec. 4.1), equal in model.fusion_neck
        scene_size=224,  # BYOL, App. B
        instance_size=96,  # UniVIP, Sec. 4.1
        max_attempts=20,  # docs/decisions.md
        **proposal_rules),
    dict(
        type='PackInputs',
        meta_keys=('img_path', 'img_id', 'num_proposed', 'view_seed')),
]

train_dataloader = dict(
    batch_size=64,  # x 8 GPUs = 512 (UniVIP, Sec. 4.1)
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,  # tools/train.py turns it off without a GPU
    drop_last=True,
    # The views are a function of (seed, epoch, image).
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='univip_mm.collate_views'),
    dataset=dict(
        type='ProposalCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        proposal_file='proposals/train2017.npz',
        data_prefix=dict(img_path='train2017/'),
        pipeline=train_pipeline))
