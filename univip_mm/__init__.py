"""UniVIP self-supervised pre-training for MMPretrain and MMSelfSup.

Importing the package registers its parts in scope ``univip_mm``, under the
installed host. With ``UNIVIP_HOST=none`` in the environment nothing is
registered, and neither a host nor PyTorch is loaded: the commands that make
proposals need neither, start in a tenth of the time, and take a quarter of the
memory.
"""
import os

import _univip_mm_configs  # noqa: F401  the names `univip_mm::...`

from .version import __version__

if os.environ.get('UNIVIP_HOST') != 'none':
    from . import datasets, engine, evaluation, models  # noqa: F401

__all__ = ['__version__']
