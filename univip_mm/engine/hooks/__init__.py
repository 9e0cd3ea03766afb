from .non_finite_hook import NonFiniteHook
from .safe_resume_hook import SafeResumeHook
from .skipped_images_hook import SkippedImagesHook

__all__ = ['NonFiniteHook', 'SafeResumeHook', 'SkippedImagesHook']
