"""Check of batches and schedules before the first step."""
from mmengine.hooks import Hook

from ...registry import HOOKS
from ..graph_check import check_graph
from ..loop_checks import check_loop
from ..schedules import schedule_warnings


@HOOKS.register_module()
class LoopCheckHook(Hook):
    """Hook that checks the batches and the schedules before the first step.

    A training whose epochs have no batch, or a batch that cannot be
    normalized, stops here and not within the epoch. A schedule that begins
    after the end of the training, or ends long before it, is logged as a
    warning. A ``model.graph`` that cannot work with the rest of the config
    also stops the training here.

    Raises:
        ValueError: As in :func:`univip_mm.engine.loop_checks.check_loop` and
            :func:`univip_mm.engine.graph_check.check_graph`.
    """

    def before_train(self, runner) -> None:
        """Check the loop, and log warnings of schedules."""
        check_graph(runner.cfg)
        check_loop(runner)
        for text in schedule_warnings(runner):
            runner.logger.warning(text)
