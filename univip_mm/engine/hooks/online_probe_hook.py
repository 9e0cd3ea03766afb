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
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ...registry import HOOKS

BRANCHES = ('online', 'target')


@HOOKS.register_module()
class OnlineProbeHook(Hook):
    """Measures the backbone's frozen features during pre-training, and leaves
    the training as it would be without.

    It takes the ``test_dataloader`` and the ``test_evaluator`` of a config
    that ``tools/test.py`` evaluates, and gives what that gives for the
    checkpoint of the epoch::

        custom_hooks = [
            ...,
            dict(type='OnlineProbeHook', interval=10,
                 dataloader=dict(
                     batch_size=64, num_workers=4,
                     dataset=dict(type='ConcatDataset', datasets=[
                         dict(type='CocoMultiLabel', split=split, part=part,
                              ann_file=..., data_prefix=..., pipeline=...)
                         for split, part in dict(
                             train=(0, .5), val=(.5, 1)).items()])),
                 evaluator=dict(type='MultiLabelProbe')),
        ]

    For folders of classes as ImageNet's, the data sets are the host's, with
    ``dict(type='SetSplit', split='train')`` or ``'val'`` before
    ``PackInputs``, and the evaluator is ``dict(type='KNNAccuracy')``; both
    are in ``univip_mm.downstream``, which ``custom_imports`` then names too.

    The metrics go to the log and, by their names and the epoch, to the
    visualizer's back ends. They are measured before the first epoch, so that
    there is something to compare with and a fault is told at once; then after
    every ``interval`` epochs and after the last one, when the checkpoint of
    the epoch has been written.

    What is measured is a copy of the backbone, in evaluation mode and
    float32. Neither the network nor the message hub is touched, and Python's,
    NumPy's and PyTorch's random numbers go on where they were, so checkpoints
    are bit for bit the same with and without this hook.

    Of several processes, each computes the features of its share of the
    images, all with the batch-norm statistics of rank 0, whose are in the
    checkpoint. The classifiers are fitted on rank 0 while the others wait.
    They give up after the group's time-out (PyTorch's is 10 minutes for NCCL
    and 30 for gloo): where the fit takes longer,
    ``env_cfg.dist_cfg.timeout``, in seconds, has to be raised.

    Args:
        dataloader (dict): Config of the loader. ``sampler`` and
            ``collate_fn`` may be left out.
        evaluator (dict or Sequence[dict]): Config of the metric, or of
            several, each with a ``prefix`` of its own.
        interval (int): Epochs from one probe to the next. Defaults to 10.
        branch (str): Whose backbone, 'online' or 'target'. To probe both,
            take two hooks, and give the evaluator of one a ``prefix``.
            Defaults to 'online'.

    Raises:
        ValueError: ``interval`` or ``branch`` is out of its range, or the
            model has no such branch.
    """
    # After the checkpoint, which a fault in here is not to take along.
    priority = 'LOWEST'

    def __init__(self,
                 dataloader: dict,
                 evaluator: Union[dict, Sequence[dict]],
                 interval: int = 10,
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
        # Built now, so that a fault of the config is told before training.
        with untouched_state():
            self.dataloader = Runner.build_dataloader(
                {**defaults, **dataloader}, seed=0)
            self.evaluator = Evaluator(evaluator)
        self.evaluator.dataset_meta = getattr(self.dataloader.dataset,
                                              'metainfo', None)

    def before_train(self, runner) -> None:
        """Measure the network that the training starts from."""
        if runner.epoch == 0:
            self._probe(runner, epoch=0)

    def after_train_epoch(self, runner) -> None:
        """Measure it after every ``interval`` epochs and the last."""
        if self.every_n_epochs(runner, self.interval) or (
                self.is_last_train_epoch(runner)):
            self._probe(runner, epoch=runner.epoch + 1)

    def _probe(self, runner, epoch: int) -> None:
        start = time.perf_counter()
        with untouched_state():
            metrics = self._measure(_bare(runner.model))
        spelt = ', '.join(f'{name} {x:.2f}' for name, x in metrics.items())
        runner.logger.info(
            f'probe of the {self.branch} branch after epoch {epoch}: {spelt} '
            f'({time.perf_counter() - start:.1f} s)')
        runner.visualizer.add_scalars(metrics, step=epoch)

    @torch.no_grad()
    def _measure(self, model: nn.Module) -> dict[str, float]:
        # What was kept of a probe that did not come to its end.
        for metric in self.evaluator.metrics:
            metric.results.clear()
        backbone = copy.deepcopy(backbone_of(model, self.branch))
        backbone.eval()  # which gives nothing back for the host's
        for buffer in backbone.buffers():
            broadcast(buffer)
        for batch in self.dataloader:
            data = model.data_preprocessor(batch, False)
            feature_map = backbone(data['inputs'])[-1]
            samples = data['data_samples']
            for sample, feature in zip(samples, feature_map.mean((2, 3))):
                sample.set_field(feature, 'feature')
            self.evaluator.process(samples, batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))


def backbone_of(model: nn.Module, branch: str) -> nn.Module:
    """The backbone of a branch of UniVIP, or of another heir of BYOL.

    Raises:
        ValueError: The model has no such branch.
    """
    try:
        return (model.backbone if branch == 'online' else
                model.target_net.module[0])
    except (AttributeError, TypeError):
        raise ValueError(
            f'{type(model).__name__} has no backbone in a branch '
            f"'{branch}', as UniVIP and BYOL have: give "
            'OnlineProbeHook another branch, or leave it out') from None


@contextmanager
def untouched_state() -> Iterator[None]:
    """Random numbers of Python, NumPy and PyTorch go on afterwards where they
    were, and so does cuDNN's search for the fastest convolutions, which is
    off meanwhile: images of many sizes would have it search for each."""
    python, numpy = random.getstate(), np.random.get_state()
    benchmark = torch.backends.cudnn.benchmark
    devices = []
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = [torch.cuda.current_device()]
    try:
        torch.backends.cudnn.benchmark = False
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        random.setstate(python)
        np.random.set_state(numpy)


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
