from mmengine.hooks import Hook

from ...registry import HOOKS
from ..checkpoint import allow_checkpoint_types


@HOOKS.register_module()
class SafeResumeHook(Hook):
    """Lets ``--resume`` and ``load_from`` read MMEngine's checkpoints with
    ``torch.load``'s ``weights_only`` left on, as PyTorch 2.6 has it. Where
    PyTorch is older, local files are read by the same rules.

    MMEngine stores its log in the checkpoint as objects that PyTorch refuses
    by default. Exactly these types are admitted; any other is still refused.
    And the Runner executes, as a config, what a checkpoint of an early
    MMEngine has in ``meta.config``; it is taken out.
    """
    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        """Runs before the Runner loads a checkpoint."""
        allow_checkpoint_types()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Runs before the Runner looks into the checkpoint."""
        checkpoint.get('meta', {}).pop('config', None)
