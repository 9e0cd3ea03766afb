from mmengine.hooks import Hook

from ...registry import HOOKS
from ..checkpoint import load_checkpoints_safely


@HOOKS.register_module()
class SafeResumeHook(Hook):
    """Lets ``--resume`` and ``load_from`` read MMEngine's checkpoints without
    executing anything in them, with every PyTorch.

    MMEngine stores its log in the checkpoint as objects that PyTorch refuses
    by default since 2.6; before, it executed whatever was in the file.
    Exactly the types of the log are admitted; any other is refused. And the
    Runner executes, as a config, what a checkpoint of an early MMEngine has
    in ``meta.config``; it is taken out.
    """
    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        """Runs before the Runner loads a checkpoint."""
        load_checkpoints_safely()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Runs before the Runner looks into the checkpoint."""
        checkpoint.get('meta', {}).pop('config', None)
