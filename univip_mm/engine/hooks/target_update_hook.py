import math

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ...registry import HOOKS


@HOOKS.register_module()
class TargetUpdateHook(Hook):
    """Lets the target of :class:`UniVIP` move once for each step of the
    optimiser, and no more: neither for each of the batches whose gradients
    are accumulated, nor where a loss scaler skipped the step.

    Without it, as in the host's BYOL, the target moves with each batch.
    """

    def before_train(self, runner) -> None:
        """Count the optimiser's steps."""
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        if not hasattr(model, 'steps_since_update'):
            return
        wrapper = runner.optim_wrapper
        # The first batch moves the target to the weights that it finds.
        model.steps_since_update = 1

        def count(*_) -> None:
            model.steps_since_update += 1

        self._handle = wrapper.optimizer.register_step_post_hook(count)
        accumulated = getattr(wrapper, '_accumulative_counts', 1)
        model.target_net.max_updates = math.ceil(
            runner.max_iters / accumulated)
