"""Transforms that load an image and crop its views."""
from ...io.encoded_image import EncodedImage
from .load_encoded_image import LoadEncodedImage
from .overlap_scene_crop import OverlapSceneCrop

__all__ = ['EncodedImage', 'LoadEncodedImage', 'OverlapSceneCrop']
