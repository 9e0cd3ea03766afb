"""UniVIP self-supervised pre-training for MMPretrain and MMSelfSup.

Importing the package registers its components in scope ``univip_mm``, below
the registries of the installed host. With ``UNIVIP_HOST=none`` in the
environment nothing is registered, and neither a host nor PyTorch is imported:
the proposal tools need neither, start ten times faster and take a quarter of
the memory.
"""
import os

from .io.configs import config_path
from .version import __version__

if os.environ.get('UNIVIP_HOST') != 'none':
    from . import datasets, engine, evaluation, models  # noqa: F401

__all__ = ['__version__', 'config_path']
