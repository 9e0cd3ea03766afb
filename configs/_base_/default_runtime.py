# Registers univip_mm. A project of your own needs only this line.
custom_imports = dict(imports=['univip_mm'], allow_failed_imports=False)
default_scope = 'univip_mm'

default_hooks = dict(
    # Read the log values from the GPU only when they are logged.
    runtime_info=dict(type='AsyncRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Save a checkpoint every 10 epochs and keep the last three.
    checkpoint=dict(type='SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    # Shuffle the images differently in every epoch.
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # These hooks are here, not in custom_hooks, so that the custom_hooks of a
    # project do not replace them. docs/reliability.md describes each hook.
    iter_seed=dict(type='IterSeedHook'),
    target_update=dict(type='TargetUpdateHook'),
    loop_check=dict(type='LoopCheckHook'),
    rank_check=dict(type='RankCheckHook'),
    safe_resume=dict(type='SafeResumeHook'),
    changed_run=dict(type='ChangedRunHook'),
    non_finite=dict(type='NonFiniteHook'),
    skipped_images=dict(type='SkippedImagesHook'),
    preemption=dict(type='PreemptionHook'),
    # End all ranks if one of them does not answer for a minute.
    heartbeat=dict(type='HeartbeatHook', limit=60),
    # Save pictures of the views in the first epoch and every 50 epochs.
    view_sheet=dict(type='ViewSheetHook', interval=50),
    # Log the effective rank of the features, a measure of collapse.
    effective_rank=dict(type='EffectiveRankHook'))

# Log means over the last iterations, also of the model's log values.
log_processor = dict(
    window_size=10,
    mean_pattern=r'.*(loss|time|grad_norm|projection_std|plan_entropy'
    r'|uniform_marginals|proposal_share).*')

env_cfg = dict(
    cudnn_benchmark=True,  # views have fixed sizes
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # Seconds that a rank waits for another in a collective operation. Dead
    # ranks are noticed earlier, by the heartbeat. Probes and checkpoints of
    # rank 0 must take less time.
    dist_cfg=dict(backend='nccl', timeout=600))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
