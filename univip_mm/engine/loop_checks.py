"""Checks that the batches fit the number of images."""
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.runner import Runner

from ..datasets.wrappers import leaves
from .network_check import check_network


def check_loop(runner: Runner) -> None:
    """Build the training loop, and check the batches of an epoch.

    Raises:
        ValueError: The data set is in a wrapper that is not supported, an
            epoch has no batch, a batch of a single image cannot be normalized,
            or the training has no complete optimizer step.
    """
    loader = runner.train_loop.dataloader
    leaves(loader.dataset)
    _check_slice(loader.dataset)
    # A batch sampler of the user has its own rules, and InfiniteSampler fills
    # each batch.
    if loader.batch_size is not None and not isinstance(
            loader.sampler, InfiniteSampler):
        _check_batches(runner, loader)
    wrapper = runner.optim_wrapper  # a dict until the Runner builds it
    count = (wrapper.get('accumulative_counts', 1)
             if isinstance(wrapper, dict) else
             getattr(wrapper, '_accumulative_counts', 1))
    if count > runner.max_iters:
        raise ValueError(
            f'optim_wrapper.accumulative_counts is {count}, but the training '
            f'has only {runner.max_iters} iterations, so not one complete '
            'optimizer step: lower accumulative_counts, or train longer')


def _check_batches(runner: Runner, loader: Any) -> None:
    ranks = get_world_size()
    images, size = len(loader.sampler), loader.batch_size  # of this process
    facts = (f'train_dataloader.batch_size is {size}'
             + (f' on {ranks} processes' if ranks > 1 else '')
             + f', and the data set has {len(loader.dataset)} images')
    more = ("repeat the images with dataset=dict(type='RepeatDataset', "
            'times=..., dataset=...)')
    if ranks > 1:
        more = f'use fewer than {ranks} processes, or {more}'
    if len(loader) == 0:
        lower = f'lower batch_size to at most {images}, or '
        raise ValueError(f'{facts}, so an epoch has no complete batch: '
                         + (lower if images > 1 else '') + more)
    last = images % size or size
    if last > 1 or (size > 1 and loader.drop_last):
        return
    try:
        check_network(runner.cfg, batch_size=1)
    except ValueError as e:
        if 'more than 1 value' not in str(e):
            raise
        cure = (more if images == 1 else 'raise batch_size' if size == 1 else
                'set train_dataloader.drop_last=True, or change batch_size')
        raise ValueError(
            f'{facts}, so {"each" if size == 1 else "the last"} batch has a '
            'single image per process, which batch normalization cannot use: '
            + cure) from None


def _check_slice(dataset: Any) -> None:
    """Check the loader's option ``num_batch_per_epoch``."""
    whole = getattr(dataset, '__dict__', {}).get('_dataset')
    if whole is not None and len(dataset) > len(whole):
        raise ValueError(
            f'train_dataloader.num_batch_per_epoch needs {len(dataset)} '
            f'images, but the data set has only {len(whole)}: lower it')
