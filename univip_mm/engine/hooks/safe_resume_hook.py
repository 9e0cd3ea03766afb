"""Resumption without executing code in the checkpoint."""
from mmengine.hooks import Hook

from ...registry import HOOKS
from ..checkpoint import load_checkpoints_safely


@HOOKS.register_module()
class SafeResumeHook(Hook):
    """Hook that makes ``--resume`` and ``load_from`` safe in every PyTorch.

    MMEngine stores its log in the checkpoint as Python objects. PyTorch
    refuses these by default since 2.6; older versions execute any code in the
    file. This hook allows exactly the types of the log and refuses all
    others. It also removes ``meta.config``, which the Runner would execute.
    """
    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        """Replace the loader before the Runner loads a checkpoint."""
        load_checkpoints_safely()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remove the config before the Runner reads the checkpoint."""
        checkpoint.get('meta', {}).pop('config', None)
