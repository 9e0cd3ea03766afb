"""Hooks, config checks, checkpoints and replay files for training."""
from .hooks import *  # noqa: F403
