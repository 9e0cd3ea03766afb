from .hooks import (
    IterSeedHook,
    NonFiniteHook,
    OnlineProbeHook,
    PreemptionHook,
    SafeCheckpointHook,
    SafeResumeHook,
    SkippedImagesHook,
    TargetUpdateHook,
)

__all__ = [
    'IterSeedHook', 'NonFiniteHook', 'OnlineProbeHook', 'PreemptionHook',
    'SafeCheckpointHook', 'SafeResumeHook', 'SkippedImagesHook',
    'TargetUpdateHook'
]
