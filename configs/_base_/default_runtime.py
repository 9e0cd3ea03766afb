# What registers univip_mm, and the only line a project of its own needs.
custom_imports = dict(imports=['univip_mm'], allow_failed_imports=False)
default_scope = 'univip_mm'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # A checkpoint every 10 epochs, the last three kept.
    checkpoint=dict(type='SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    # Another order of the images on every epoch.
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Here and not in custom_hooks, so that a project's own do not replace
    # them; docs/reliability.md says what each is for.
    iter_seed=dict(type='IterSeedHook'),
    target_update=dict(type='TargetUpdateHook'),
    safe_resume=dict(type='SafeResumeHook'),
    non_finite=dict(type='NonFiniteHook'),
    skipped_images=dict(type='SkippedImagesHook'),
    preemption=dict(type='PreemptionHook'),
    # What the network sees, as pictures, in the first epoch and every 50.
    view_sheet=dict(type='ViewSheetHook', interval=50))

# Means over the last iterations, of the model's statistics too.
log_processor = dict(
    window_size=10,
    mean_pattern=r'.*(loss|time|grad_norm|projection_std|plan_entropy'
    r'|uniform_marginals|proposal_share).*')

env_cfg = dict(
    cudnn_benchmark=True,  # the views have fixed sizes
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
