"""Actions before a checkpoint is saved."""
import functools
from typing import Any, Callable


def call_before_save(runner: Any, action: Callable[[], Any]) -> None:
    """Call a function before each ``save_checkpoint`` of a Runner.

    MMEngine collects the content of the checkpoint, also the log, before it
    calls the hooks' ``before_save_checkpoint``, and calls these on rank 0
    only. ``action`` is called earlier, on each rank that saves. An error of
    ``action`` prevents the checkpoint. As MMEngine's own hooks, call
    ``save_checkpoint`` on all ranks.
    """
    save = runner.save_checkpoint

    @functools.wraps(save)
    def save_after_action(*args, **kwargs) -> None:
        action()
        save(*args, **kwargs)

    runner.save_checkpoint = save_after_action
