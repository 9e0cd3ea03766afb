"""UniVIP self-supervised pre-training for MMPretrain and MMSelfSup.

Importing the package registers its components in scope ``univip_mm``, under
the installed host. With the environment variable ``UNIVIP_HOST=none``, nothing
is registered, and neither a host nor PyTorch is imported. The proposal
tools set it, so they start in a tenth of the time and need a quarter of the
memory.
"""
import importlib
import os
from typing import Any

from .io.configs import config_path
from .version import __version__

if os.environ.get('UNIVIP_HOST') != 'none':
    from . import datasets, engine, evaluation, models  # noqa: F401

__all__ = ['__version__', 'config_path', 'embed', 'export', 'pretrain']
# Functions of modules that are imported when they are used.
_MODULE_OF = dict(pretrain='workflow.pretrain', export='downstream.export',
                  embed='downstream.embed')


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        module = importlib.import_module(f'.{_MODULE_OF[name]}', __name__)
        return getattr(module, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
