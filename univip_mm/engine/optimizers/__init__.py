"""Optimizers that do not wait for the device."""
from .lars import ForeachLARS

__all__ = ['ForeachLARS']
