"""Hooks, config checks, checkpoints and optimizers for training."""
from .hooks import *  # noqa: F403
from .optimizers import *  # noqa: F403
from .pretrained_init import CheckedPretrainedInit  # noqa: F401
