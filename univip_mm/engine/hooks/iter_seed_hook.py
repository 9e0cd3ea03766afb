"""Seeding of every iteration, for exact resumption."""
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
    """Hook that seeds each iteration, so that a resumed training is exact.

    Before each iteration, the random generators of Python, NumPy and PyTorch
    are seeded with a function of the seed, the iteration and the rank. The
    sampler gets the seed of the Runner, which after a resume is the seed of
    the checkpoint. If a checkpoint was written within an epoch, the rest of
    the epoch skips the batches that were already used. Skipping requires
    :class:`EpochSampler`.
    """
    # Before DistSamplerSeedHook, which sets the epoch of the sampler.
    priority = 'ABOVE_NORMAL'

    def before_train_epoch(self, runner) -> None:
        """Seed the sampler and skip the batches that were already used."""
        _seed(runner)  # a loader without workers samples in this process
        loader = runner.train_dataloader
        sampler = getattr(loader, 'sampler', None)
        if hasattr(sampler, 'seed'):
            sampler.seed = common_seed(runner)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return  # the loader may have no length
        done = runner.iter - runner.epoch * len(loader)
        if done <= 0:
            return
        if hasattr(sampler, 'skip'):
            sampler.skip = done * loader.batch_size
            runner.logger.info(f'resumed in epoch {runner.epoch + 1} after '
                               f'iteration {done} of {len(loader)}')
        else:
            runner.logger.warning(
                f'epoch {runner.epoch + 1} restarts, although {done} of its '
                f'iterations are done: {type(sampler).__name__} cannot skip '
                'them; use sampler=dict(type="EpochSampler")')

    def before_train_iter(self, runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Seed again: starting the loader may have used random numbers."""
        _seed(runner)


def common_seed(runner) -> int:
    """Return the seed of all ranks.

    With MMEngine's option ``diff_rank_seed``, each rank adds its number.
    """
    different = runner.cfg.get('randomness', {}).get('diff_rank_seed')
    return runner.seed - get_rank() if different else runner.seed


def _seed(runner) -> None:
    sequence = np.random.SeedSequence(
        [common_seed(runner), runner.iter, get_rank()])
    seed = int(sequence.generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # all devices
