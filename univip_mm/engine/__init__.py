from .hooks import SafeResumeHook, SkippedImagesHook

__all__ = ['SafeResumeHook', 'SkippedImagesHook']
