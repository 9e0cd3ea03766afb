"""Speed of a whole training step, compared with the host's BYOL."""
import argparse
from pathlib import Path
from typing import Callable, Optional
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from torch.utils._python_dispatch import TorchDispatchMode

from univip_mm.models import data_preprocessor
from univip_mm.registry import MODELS

from .timing import device, time_on_device

ROOT = Path(__file__).parents[3]


def make_views(batch_size: int, num_instances: int = 4, scene: int = 224,
               instance: int = 96) -> list[torch.Tensor]:
    """Return random uint8 views: two scenes, then the instances."""
    generator = torch.Generator().manual_seed(0)
    sizes = [scene] * 2 + [instance] * num_instances
    return [torch.randint(0, 256, (batch_size, 3, size, size),
                          dtype=torch.uint8, generator=generator).to(device())
            for size in sizes]


def univip_config(depth: int) -> Config:
    """Return the recipe's model on a ResNet, with plain BatchNorm."""
    cfg = Config.fromfile(str(ROOT / 'configs/univip_r50_coco.py')).model
    cfg.backbone.update(depth=depth, norm_cfg=dict(type='BN'))
    cfg.neck.update(in_channels=2048 if depth >= 50 else 512,
                    norm_cfg=dict(type='BN1d'))
    cfg.head.predictor.update(norm_cfg=dict(type='BN1d'))
    return cfg


def small_univip_config(num_instances: int) -> Config:
    """Return a model on ResNet-18/4, a ResNet-18 of a quarter width."""
    cfg = univip_config(18)
    cfg.backbone.update(base_channels=16, stem_channels=16)
    cfg.neck.update(in_channels=128, hid_channels=256)
    cfg.head.predictor.update(hid_channels=256)
    cfg.fusion_neck.update(num_instances=num_instances)
    return cfg


class TrainingStep:
    """A training step: data preprocessor, forward, backward and SGD.

    ``precision`` is the type of the autocast. ``parallel`` wraps the model for
    distributed training.
    """

    def __init__(self, model: dict, views: list,
                 precision: Optional[torch.dtype] = None,
                 parallel: Optional[Callable] = None) -> None:
        self.model = MODELS.build(model).to(device()).train()
        self.forward = parallel(self.model) if parallel else self.model
        self.optim_wrapper = OptimWrapper(
            torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9))
        self.data = dict(inputs=views, data_samples=None)
        self.precision = precision

    def __call__(self) -> None:
        """Run the step once."""
        with torch.autocast(device(), self.precision,
                            enabled=self.precision is not None):
            data = self.model.data_preprocessor(self.data, training=True)
            losses = self.forward(**data, mode='loss')
            loss, _ = self.model.parse_losses(losses)
        self.optim_wrapper.update_params(loss)


class _OperationCounter(TorchDispatchMode):
    """Counter of the operations that are not views.

    On a GPU, each of these operations starts at least one kernel or copy,
    and costs the CPU time of the start.
    """
    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += not function.is_view
        return function(*args, **(kwargs or {}))


def count_operations(function: Callable) -> int:
    """Return the operations of a call, with the batch in one piece.

    On a CPU, the data preprocessor splits the batch; on a GPU, it does not.
    """
    with mock.patch.object(data_preprocessor, '_CPU_CHUNK_VALUES', 2**62), \
            _OperationCounter() as counter:
        function()
    return counter.number


def measure_step(args: argparse.Namespace) -> dict:
    """Compare UniVIP with the host's BYOL on the same backbone and batch."""
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    steps = _build_steps(args)
    seconds = time_on_device(steps, repeats=2 if device() == 'cpu' else 20)
    results = {f'{name}, s': value for name, value in seconds.items()}
    results['ratio (at most 1.45; arithmetic alone 1.37)'] = (
        seconds['univip'] / seconds['byol'])
    for name in ('univip', 'byol'):
        results[f'{name}, operations'] = count_operations(steps[name])
    if device() == 'cuda':
        results['ratio of the fastest (at most 1)'] = (
            seconds['univip bf16'] / seconds['byol amp'])
        memory = {name: _peak_memory(step) for name, step in steps.items()}
        for name, value in memory.items():
            results[f'{name}, peak GiB'] = value
        results['ratio of memory (at most 1.4)'] = (
            memory['univip'] / memory['byol'])
    return results


def _build_steps(args: argparse.Namespace) -> dict[str, TrainingStep]:
    cfg = univip_config(args.depth)
    preprocessor = dict(
        type='SelfSupDataPreprocessor', to_rgb=True,
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    byol = dict(type='BYOL', backbone=cfg.backbone, neck=cfg.neck,
                head=cfg.head, base_momentum=0.01,
                data_preprocessor=preprocessor)
    views = make_views(args.batch_size)
    steps = dict(univip=TrainingStep(cfg, views),
                 byol=TrainingStep(byol, views[:2]))
    if device() == 'cuda':
        fast = Config(cfg.to_dict())
        fast.data_preprocessor.channels_last = True
        steps['univip bf16'] = TrainingStep(fast, views, torch.bfloat16)
        steps['byol amp'] = TrainingStep(byol, views[:2], torch.float16)
    return steps


def _peak_memory(step: TrainingStep) -> float:
    """Return the peak GPU memory of a step, GiB."""
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() / 2**30
