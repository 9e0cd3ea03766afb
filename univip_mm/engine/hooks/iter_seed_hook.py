import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ...registry import HOOKS


@HOOKS.register_module()
class IterSeedHook(Hook):
    """Makes what an iteration draws a function of the seed, its number and
    the rank, so that a resumed training goes on as if it had never been
    interrupted, wherever that was.

    Before each iteration, the random generators of Python, NumPy and PyTorch
    are seeded anew; the sampler gets the Runner's seed, which after a resume
    is the checkpoint's. Where a checkpoint was written within an epoch, the
    batches that it had seen are left out of the rest of it; this needs
    :class:`EpochSampler`.
    """
    # Before DistSamplerSeedHook, which passes the epoch on.
    priority = 'ABOVE_NORMAL'

    def before_train_epoch(self, runner) -> None:
        """Seed, for what a loader without workers draws, and skip what the
        epoch has already seen."""
        _seed(runner)
        loader = runner.train_dataloader
        sampler = getattr(loader, 'sampler', None)
        if hasattr(sampler, 'seed'):
            sampler.seed = runner.seed
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        seen = runner.iter - runner.epoch * len(loader)
        if seen <= 0:
            return
        if hasattr(sampler, 'skip'):
            sampler.skip = seen * loader.batch_size
            runner.logger.info(f'epoch {runner.epoch + 1} goes on after its '
                               f'first {seen} iterations')
        else:
            runner.logger.warning(
                f'epoch {runner.epoch + 1} begins anew, although its first '
                f'{seen} iterations are done: {type(sampler).__name__} '
                'cannot skip them; EpochSampler can')

    def before_train_iter(self, runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Seed: the start of a loader has drawn, or not."""
        _seed(runner)


def _seed(runner) -> None:
    sequence = np.random.SeedSequence([runner.seed, runner.iter, get_rank()])
    seed = int(sequence.generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # of all devices
