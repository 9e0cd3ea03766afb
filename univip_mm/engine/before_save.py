"""Actions before a checkpoint is saved."""
import functools
from typing import Any, Callable


def call_before_save(runner: Any, action: Callable[[], Any]) -> None:
    """Call a function before each ``save_checkpoint`` of a Runner.

    The hooks' ``before_save_checkpoint`` is too late: MMEngine calls this
    method on rank 0 only, after it has collected the content of the
    checkpoint, which includes the log. ``action`` is called earlier, on each
    rank that calls ``save_checkpoint``. An error of ``action`` prevents the
    checkpoint. Call ``save_checkpoint`` on all ranks, as MMEngine's hooks do.
    """
    save = runner.save_checkpoint

    @functools.wraps(save)
    def save_after_action(*args, **kwargs) -> None:
        action()
        save(*args, **kwargs)

    runner.save_checkpoint = save_after_action
