"""UniVIP self-supervised pre-training for MMPretrain and MMSelfSup.

Importing the package registers its parts in scope ``univip_mm``.
"""
from . import datasets, engine, evaluation, models  # noqa: F401
from .version import __version__

__all__ = ['__version__']
