"""Hooks, config checks, checkpoints and replay files of a training."""
from .hooks import *  # noqa: F403
