"""Evaluation of the frozen backbone during pre-training."""
import copy
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Union

import numpy as np
import torch
from mmengine.dist import broadcast
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ...models.pooling import pool
from ...registry import HOOKS
from ...utils.unwrap import unwrap_model
from ..branches import BRANCHES, backbone_of


@HOOKS.register_module()
class OnlineProbeHook(Hook):
    """Hook that evaluates the frozen backbone during pre-training.

    The options are the ``test_dataloader`` and ``test_evaluator`` of a config
    for ``tools/test.py``, whose results for the checkpoint are the same::

        dict(type='OnlineProbeHook', interval=10,
             dataloader=dict(
                 batch_size=64, num_workers=4,
                 dataset=dict(type='ConcatDataset', datasets=[
                     dict(type='CocoMultiLabel', split=split, part=part,
                          ann_file=..., data_prefix=..., pipeline=...)
                     for split, part in dict(
                         train=(0, .5), val=(.5, 1)).items()])),
             evaluator=dict(type='MultiLabelProbe'))

    For folders of classes, as ImageNet's, use the data sets of the host with
    ``dict(type='SetSplit', split='train')`` or ``'val'`` before
    ``PackInputs``, and the evaluator ``dict(type='KNNAccuracy')``. Both need
    ``univip_mm.downstream`` in ``custom_imports``.

    The metrics go to the log and to the backends of the visualizer. The
    backbone is evaluated before the first epoch, as a baseline and to find
    config errors early; then after every ``interval`` epochs and after the
    last one, once the checkpoint of the epoch is written.

    The hook evaluates a copy of the backbone in evaluation mode and float32,
    and restores all random states. Checkpoints are therefore bit-identical
    with and without this hook.

    With several ranks, each rank computes the features of its images, with
    the batch-norm statistics of rank 0, which are in the checkpoint. Rank 0
    fits the classifiers while the others wait. If the fit takes longer than
    the timeout of the process group (ten minutes in our configs), increase
    ``env_cfg.dist_cfg.timeout``, in seconds.

    Args:
        dataloader (dict): Config of the data loader. ``sampler`` and
            ``collate_fn`` are optional.
        evaluator (dict or Sequence[dict]): Config of one metric, or of
            several with different ``prefix``.
        interval (int): Epochs between two evaluations. Defaults to 10.
        branch (str): Branch of the backbone, 'online' or 'target'. To
            evaluate both, add two hooks and give one evaluator a ``prefix``.
            Defaults to 'online'.

    Raises:
        ValueError: ``interval`` or ``branch`` is out of its range, or the
            model has no such branch.
    """
    # After CheckpointHook, so that an error here cannot lose the checkpoint.
    priority = 'LOWEST'

    def __init__(self, dataloader: dict,
                 evaluator: Union[dict, Sequence[dict]], interval: int = 10,
                 branch: str = 'online') -> None:
        if interval < 1:
            raise ValueError(f'OnlineProbeHook: interval is {interval}, but '
                             'must be at least 1 epoch')
        if branch not in BRANCHES:
            raise ValueError(f"OnlineProbeHook: branch is '{branch}', but "
                             "must be 'online' or 'target'")
        self.interval = interval
        self.branch = branch
        defaults = dict(
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'))
        # Built here, so that config errors are raised before the training.
        with preserve_state():
            self.dataloader = Runner.build_dataloader(
                {**defaults, **dataloader}, seed=0)
            self.evaluator = Evaluator(evaluator)
        self.evaluator.dataset_meta = getattr(
            self.dataloader.dataset, 'metainfo', None)

    def before_train(self, runner) -> None:
        """Evaluate the initial network."""
        if runner.iter == 0:  # not after a resume
            self._probe(runner, epoch=0)

    def after_train_epoch(self, runner) -> None:
        """Evaluate after every ``interval`` epochs and the last one."""
        if self.every_n_epochs(runner, self.interval) or (
                self.is_last_train_epoch(runner)):
            self._probe(runner, epoch=runner.epoch + 1)

    def _probe(self, runner, epoch: int) -> None:
        start = time.perf_counter()
        with preserve_state():
            metrics = self._evaluate(unwrap_model(runner.model))
        text = ', '.join(f'{name} {x:.2f}' for name, x in metrics.items())
        runner.logger.info(
            f'probe of the {self.branch} branch after epoch {epoch}: {text} '
            f'({time.perf_counter() - start:.1f} s)')
        runner.visualizer.add_scalars(metrics, step=epoch)

    @torch.no_grad()
    def _evaluate(self, model: nn.Module) -> dict[str, float]:
        for metric in self.evaluator.metrics:
            metric.results.clear()  # of an interrupted evaluation
        backbone = copy.deepcopy(backbone_of(model, self.branch))
        backbone.eval()  # the host's eval() returns None, so no chaining
        for buffer in backbone.buffers():
            broadcast(buffer)
        for batch in self.dataloader:
            data = model.data_preprocessor(batch, False)
            features = pool(backbone(data['inputs']))
            samples = data['data_samples']
            for sample, feature in zip(samples, features):
                sample.set_field(feature, 'feature')
            self.evaluator.process(samples, batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))


@contextmanager
def preserve_state() -> Iterator[None]:
    """Restore the random states and cuDNN's benchmark flag at the end.

    The flag is off inside the block: with images of many sizes, cuDNN would
    search for the fastest convolution for each size.
    """
    python, numpy = random.getstate(), np.random.get_state()
    benchmark = torch.backends.cudnn.benchmark
    devices = ([torch.cuda.current_device()]
               if torch.cuda.is_initialized() else [])
    try:
        torch.backends.cudnn.benchmark = False
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        random.setstate(python)
        np.random.set_state(numpy)
