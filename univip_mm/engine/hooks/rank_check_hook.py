"""Comparison of the ranks before the first step."""
from mmengine.hooks import Hook

from ...registry import HOOKS
from ..rank_check import (
    check_config_agrees,
    check_data_agrees,
    check_start_agrees,
    check_weights_agree,
)


@HOOKS.register_module()
class RankCheckHook(Hook):
    """Hook that stops a training whose ranks differ.

    Ranks on several machines can have another config, other packages, images,
    proposals or checkpoints. Before the first step, all ranks compare them
    through the process group; before a test, they compare the config and the
    weights. If a rank differs, all ranks stop with
    :class:`~univip_mm.engine.rank_check.RanksDifferError`, whose message names
    the rank, its host and the difference. A single process is not checked.
    """
    # After the hooks that change the model.
    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._has_trained = False

    def before_run(self, runner) -> None:
        """Compare the config and the packages."""
        check_config_agrees(runner.cfg)

    def before_train(self, runner) -> None:
        """Compare the data, the iteration, the weights and the schedules."""
        check_data_agrees(runner)
        check_start_agrees(runner)
        self._has_trained = True

    def before_test(self, runner) -> None:
        """Compare the weights.

        After a training on CPUs, each rank has its own statistics of BN.
        """
        check_weights_agree(runner.model, buffers=not self._has_trained)
