# Projector 2048-4096-256 and predictor 256-4096-256, as in the host's
# byol_resnet50 (BYOL, App. B). K = 4 instances (UniVIP, Sec. 4.1).
model = dict(
    type='UniVIP',
    # The EMA coefficient rises from 0.99 to 1 by a cosine (UniVIP, Sec. 4.1).
    # base_momentum is its complement, as in MMPretrain.
    base_momentum=0.01,
    data_preprocessor=dict(
        type='UniVIPDataPreprocessor',
        mean=[123.675, 116.28, 103.53],  # ImageNet's
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        # BYOL, App. B. Both scenes: flip with probability 0.5, color jitter
        # (0.4, 0.4, 0.2, 0.1) with 0.8, gray with 0.2. The instances use the
        # options of scene1.
        scene1=dict(blur_prob=1.0, solarize_prob=0.0),
        scene2=dict(blur_prob=0.1, solarize_prob=0.2)),
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN'),
        zero_init_residual=False),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=True,
        norm_cfg=dict(type='SyncBN')),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(
            type='NonLinearNeck',
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='SyncBN')),
        loss=dict(type='CosineSimilarityLoss')),
    fusion_neck=dict(
        type='UniVIPNeck', in_channels=256, num_instances=4, out_channels=256),
    # epsilon and num_iters are OTA's (arXiv 2103.14259). UniVIP states none.
    instance_loss=dict(type='SinkhornOTLoss', epsilon=0.1, num_iters=50),
    loss_weights=dict(scene=1.0, scene_instance=1.0, instance=1.0))
