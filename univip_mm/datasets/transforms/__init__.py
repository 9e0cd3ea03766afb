from .overlap_scene_crop import OverlapSceneCrop

__all__ = ['OverlapSceneCrop']
