"""Effective rank of the features during pre-training."""
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import torch
from mmengine.dist import (
    all_gather,
    all_reduce,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from torch import Tensor, nn

from ...models.effective_rank import effective_rank
from ...models.pooling import pool
from ...registry import HOOKS
from ...utils.unwrap import unwrap_model
from .online_probe_hook import preserve_state


@HOOKS.register_module()
class EffectiveRankHook(Hook):
    """Hook that logs the effective rank of the features, without labels.

    The hook logs two values of :func:`effective_rank`, with the iteration as
    their step: ``rank_backbone`` of the pooled features of the backbone, and
    ``rank_projection`` of the projections. A value near 1 is a collapse. No
    value exceeds the number of images or of channels. The values go to the
    log and to the backends of the visualizer.

    The images are the first scenes of the last batches before a measurement,
    without photometric augmentation. The hook passes each batch through the
    online branch after the iteration that trained on it, in evaluation mode
    and float32. It changes neither weights, buffers nor random states, so the
    training is bit-identical with and without the hook. Only the log line of
    a measurement reads values from the device.

    With several ranks, each rank computes the features of its share of the
    images, and rank 0 the ranks. If that fails, the hook logs a warning and
    turns itself off. It does nothing for models other than UniVIP and BYOL.

    Args:
        num_images (int): Images of a measurement, over all ranks, but at
            most those of an eighth of the training. 0 turns the hook off.
            Defaults to 1024.
        interval (int, optional): Iterations between two measurements. The
            last iteration of the training is measured too. Defaults to an
            epoch, but at least to eight times the iterations that see
            ``num_images`` images, so that about one of 100 operations is the
            hook's.

    Raises:
        ValueError: An argument is out of its range.
    """
    # Before IterTimerHook, so that the log counts the cost as `time`, not as
    # `data_time`.
    priority = 'ABOVE_NORMAL'

    def __init__(self, num_images: int = 1024,
                 interval: Optional[int] = None) -> None:
        if num_images < 0 or (interval is not None and interval < 1):
            raise ValueError(
                f'EffectiveRankHook: num_images is {num_images} and interval '
                f'is {interval}, but they must be at least 0 and 1')
        self.num_images = num_images
        self.interval = interval
        self._is_off = num_images == 0
        self._error = ''  # of this rank
        self._features: list[list[Tensor]] = []  # one list per batch
        self._first = 0  # iteration from which features are collected
        self._next = 0  # iteration of the next measurement

    def before_train(self, runner) -> None:
        """Plan the first measurement, also of a resumed training."""
        if not hasattr(unwrap_model(runner.model), 'target_net'):
            self._is_off = True  # a benchmark, for example
        if self._is_off:
            return
        self._plan(runner, runner.iter)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Compute features before a measurement, and measure."""
        done = runner.iter + 1
        if self._is_off or done < self._first:
            return
        if not self._error:
            try:
                self._features.append(_features(
                    unwrap_model(runner.model), data_batch))
            except Exception as e:  # a measure must not stop the training
                self._error = f'{type(e).__name__}: {e}'
        if done == self._next:
            self._measure(runner, done)
            self._plan(runner, done)

    def _plan(self, runner, done: int) -> None:
        """Set the iterations of the next measurement."""
        self._features = []
        loader = runner.train_dataloader
        share = math.ceil(self.num_images / get_world_size())
        number = math.ceil(share / (loader.batch_size or share))
        # A short training is measured with fewer images.
        number = max(1, min(number, runner.max_iters // 8))
        interval = self.interval or max(_length(loader), 8 * number)
        self._next = (done // interval + 1) * interval
        if self._next + number > runner.max_iters:
            self._next = runner.max_iters
        self._first = max(self._next - number, done) + 1

    def _measure(self, runner, done: int) -> None:
        parts = [] if self._error else [
            torch.cat(x) for x in zip(*self._features)]
        device = next(runner.model.parameters()).device
        # Ranks have equally many images, unless one has failed.
        number = torch.tensor(float(len(parts[0]) if parts else 0),
                              device=device)
        all_reduce(number, op='min')
        rows = min(int(number), math.ceil(self.num_images / get_world_size()))
        if rows == 0:
            self._is_off = True
            runner.logger.warning('no effective ranks: ' + (
                self._error or 'another rank has failed'))
            return
        gathered = [torch.cat(all_gather(x[:rows].contiguous()))
                    for x in parts]
        if not is_main_process():
            return
        names = ('rank_backbone', 'rank_projection')
        ranks = {name: round(effective_rank(x), 3)
                 for name, x in zip(names, gathered)}
        text = ', '.join(
            f'{name} {value:.1f} (of {min(x.shape)})'
            for (name, value), x in zip(ranks.items(), gathered))
        runner.logger.info(f'effective ranks of {len(gathered[0])} images '
                           f'after iteration {done}: {text}')
        runner.visualizer.add_scalars(ranks, step=done)


@torch.no_grad()
def _features(model: nn.Module, batch: dict) -> list[Tensor]:
    """Return pooled features and projections of the first scenes."""
    with preserve_state(), evaluation_mode(model):
        inputs = model.data_preprocessor(_first_views(batch), False)['inputs']
        outputs = model.backbone(inputs[0])
        projections = model.neck(outputs)[0]
    return [pool(outputs).flatten(1).float(), projections.float()]


def _first_views(batch: dict) -> dict:
    """Return a batch with the first view of each image only."""
    inputs = batch['inputs']
    if isinstance(inputs, dict):  # images, and boxes to cut the views out of
        inputs = {**inputs, 'table': inputs['table'][:, :1],
                  'sizes': inputs['sizes'][:1]}
        return {**batch, 'inputs': inputs}
    return {**batch, 'inputs': inputs[:1]}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set a model to evaluation mode, and restore each layer's mode."""
    before = {module: module.training for module in model.modules()}
    try:
        for module in before:
            module.training = False
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def _length(loader: Any) -> int:
    """Return the iterations of an epoch, or 0 if the loader has no length."""
    try:
        return len(loader)
    except TypeError:
        return 0
