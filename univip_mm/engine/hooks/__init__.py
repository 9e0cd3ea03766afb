"""Hooks for MMEngine's Runner."""
from .async_runtime_info_hook import AsyncRuntimeInfoHook
from .changed_run_hook import ChangedRunHook
from .effective_rank_hook import EffectiveRankHook
from .heartbeat_hook import HeartbeatHook
from .iter_seed_hook import IterSeedHook
from .loop_check_hook import LoopCheckHook
from .non_finite_hook import NonFiniteHook
from .online_probe_hook import OnlineProbeHook
from .preemption_hook import PreemptionHook
from .rank_check_hook import RankCheckHook
from .report_hook import ReportHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .safe_resume_hook import SafeResumeHook
from .skipped_images_hook import SkippedImagesHook
from .target_update_hook import TargetUpdateHook
from .view_sheet_hook import ViewSheetHook

__all__ = [
    'AsyncRuntimeInfoHook', 'ChangedRunHook', 'EffectiveRankHook',
    'HeartbeatHook', 'IterSeedHook', 'LoopCheckHook', 'NonFiniteHook',
    'OnlineProbeHook', 'PreemptionHook', 'RankCheckHook', 'ReportHook',
    'SafeCheckpointHook', 'SafeResumeHook', 'SkippedImagesHook',
    'TargetUpdateHook', 'ViewSheetHook'
]
