"""Generator of the demo's data set: synthetic scenes of several objects.

Shape and structure define a class. Colors, background, light, place, size and
pose are independent of the class, so neither color nor background reveals it.
"""
from .compose import SceneObject, make_scene
from .objects import CLASSES
from .writer import make_scenes

__all__ = ['CLASSES', 'SceneObject', 'make_scene', 'make_scenes']
