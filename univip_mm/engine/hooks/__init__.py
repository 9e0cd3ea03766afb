from .safe_resume_hook import SafeResumeHook
from .skipped_images_hook import SkippedImagesHook

__all__ = ['SafeResumeHook', 'SkippedImagesHook']
