from .hooks import NonFiniteHook, SafeResumeHook, SkippedImagesHook

__all__ = ['NonFiniteHook', 'SafeResumeHook', 'SkippedImagesHook']
