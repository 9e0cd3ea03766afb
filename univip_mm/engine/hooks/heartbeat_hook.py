"""Heartbeat of the ranks during training, validation and test."""
from mmengine.hooks import Hook

from ...registry import HOOKS
from ...utils.heartbeat import LIMIT, start_heartbeat, stop_heartbeat


@HOOKS.register_module()
class HeartbeatHook(Hook):
    """Hook that ends all ranks if one of them ends, stops or is cut off.

    Without this hook, the other ranks wait for ``env_cfg.dist_cfg.timeout``.
    The message names the rank. See :mod:`univip_mm.utils.heartbeat`.

    Args:
        limit (float): Seconds without an answer of a rank after which all
            ranks are killed; 0 switches the heartbeat off, for example to
            stop a rank in a debugger. Defaults to 60.

    Raises:
        ValueError: ``limit`` is negative.
    """
    priority = 'LOWEST'  # after_run of the other hooks is still watched

    def __init__(self, limit: float = LIMIT) -> None:
        if limit < 0:
            raise ValueError(f'HeartbeatHook: limit is {limit}, but must be '
                             'positive, or 0 for no heartbeat')
        self.limit = limit

    def before_run(self, runner) -> None:
        """Start the heartbeat, unless the tool has started it."""
        start_heartbeat(self.limit)

    def after_run(self, runner) -> None:
        """Stop the heartbeat of this rank."""
        stop_heartbeat()
