"""Hooks, config checks, checkpoints and replay files of a training."""
from .hooks import (
    IterSeedHook,
    NonFiniteHook,
    OnlineProbeHook,
    PreemptionHook,
    SafeCheckpointHook,
    SafeResumeHook,
    SkippedImagesHook,
    TargetUpdateHook,
    ViewSheetHook,
)

__all__ = [
    'IterSeedHook', 'NonFiniteHook', 'OnlineProbeHook', 'PreemptionHook',
    'SafeCheckpointHook', 'SafeResumeHook', 'SkippedImagesHook',
    'TargetUpdateHook', 'ViewSheetHook'
]
