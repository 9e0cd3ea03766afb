# Projector 2048-4096-256 and predictor 256-4096-256, as in the host's
# byol_resnet50 (BYOL, App. B); K = 4 instances (UniVIP, Sec. 4.1).
model = dict(
    type='UniVIP',
    # EMA coefficient 0.99 at the start, 1 at the end, by a cosine (UniVIP,
    # Sec. 4.1). The host states the complement.
    base_momentum=0.01,
    data_preprocessor=dict(
        type='UniVIPDataPreprocessor',
        mean=[123.675, 116.28, 103.53],  # ImageNet's
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        # BYOL, App. B. Both scenes: flip 0.5, jitter (0.4, 0.4, 0.2, 0.1)
        # 0.8, grey 0.2. The instances get what the first scene gets.
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
    # epsilon and iterations: OTA (arXiv 2103.14259), which UniVIP follows.
    instance_loss=dict(type='SinkhornOTLoss', epsilon=0.1, num_iters=50),
    loss_weights=dict(scene=1.0, scene_instance=1.0, instance=1.0))
