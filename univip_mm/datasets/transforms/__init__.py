from .load_encoded_image import EncodedImage, LoadEncodedImage
from .overlap_scene_crop import OverlapSceneCrop

__all__ = ['EncodedImage', 'LoadEncodedImage', 'OverlapSceneCrop']
