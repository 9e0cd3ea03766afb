"""Training steps of UniVIP and of the host's BYOL, as a Runner makes them."""
from itertools import cycle
from pathlib import Path
from typing import Callable, Optional

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.structures import BaseDataElement

from univip_mm.registry import MODELS

from .timing import device

CONFIGS = Path(__file__).parents[3] / 'configs'
RECIPES = {None: 'univip_r50_coco.py', 'bf16': 'univip_r50_coco_bf16.py'}


def make_views(batch_size: int, num_instances: int = 4, scene: int = 224,
               instance: int = 96, seed: int = 0) -> list[torch.Tensor]:
    """Return random uint8 views on the CPU: two scenes, then instances."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [scene] * 2 + [instance] * num_instances
    return [torch.randint(0, 256, (batch_size, 3, size, size),
                          dtype=torch.uint8, generator=generator)
            for size in sizes]


def make_batches(number: int, batch_size: int, *sizes: int) -> list[dict]:
    """Return different collated batches, pinned if there is a GPU.

    ``sizes`` are the further arguments of :func:`make_views`.
    """
    batches = []
    for index in range(number):
        views = make_views(batch_size, *sizes, seed=index)
        if device() == 'cuda':  # as the loader of the recipes
            views = [view.pin_memory() for view in views]
        samples = [
            BaseDataElement(metainfo=dict(
                view_seed=index * batch_size + i, num_proposed=len(views) - 2))
            for i in range(batch_size)]
        batches.append(dict(inputs=views, data_samples=samples))
    return batches


def univip_config(depth: int, precision: Optional[str] = None) -> Config:
    """Return the recipe's model on a ResNet, with plain BatchNorm."""
    cfg = Config.fromfile(str(CONFIGS / RECIPES[precision])).model
    cfg.backbone.update(depth=depth, norm_cfg=dict(type='BN'))
    cfg.neck.update(in_channels=2048 if depth >= 50 else 512,
                    norm_cfg=dict(type='BN1d'))
    cfg.head.predictor.update(norm_cfg=dict(type='BN1d'))
    return cfg


def small_univip_config(num_instances: int,
                        precision: Optional[str] = None) -> Config:
    """Return a model on ResNet-18/4, a ResNet-18 of a quarter width."""
    cfg = univip_config(18, precision)
    cfg.backbone.update(base_channels=16, stem_channels=16)
    cfg.neck.update(in_channels=128, hid_channels=256)
    cfg.head.predictor.update(hid_channels=256)
    cfg.fusion_neck.update(num_instances=num_instances)
    return cfg


def byol_config(univip: Config) -> dict:
    """Return the host's BYOL on the networks of a UniVIP model."""
    preprocessor = dict(
        type='SelfSupDataPreprocessor', to_rgb=True,
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    return dict(
        type='BYOL', backbone=univip.backbone, neck=univip.neck,
        head=univip.head, base_momentum=0.01, data_preprocessor=preprocessor)


def recipe_wrapper(precision: Optional[str] = None) -> dict:
    """Return the recipe's optim_wrapper, with a fused SGD if possible."""
    cfg = Config.fromfile(str(CONFIGS / RECIPES[precision])).optim_wrapper
    cfg.optimizer.lr = 0.01  # the recipe's lr needs its warm-up
    if _has_fused_sgd():
        cfg.optimizer.setdefault('fused', True)
    return cfg.to_dict()


def host_wrapper(precision: Optional[str] = None) -> dict:
    """Return an optim_wrapper as the host ships it; ``amp`` is float16."""
    kind = 'AmpOptimWrapper' if precision == 'amp' else 'OptimWrapper'
    sgd = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    return dict(type=kind, optimizer=sgd)


def _has_fused_sgd() -> bool:
    parameter = torch.nn.Parameter(torch.zeros(1, device=device()))
    try:
        torch.optim.SGD([parameter], lr=0.01, fused=True)
    except (TypeError, RuntimeError):  # PyTorch below 2.3
        return False
    return True


class _CPUAutocast(OptimWrapper):
    """AmpOptimWrapper in bfloat16 for a CPU, which MMEngine's refuses."""

    def __init__(self, dtype: str, loss_scale=None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.dtype = getattr(torch, dtype)

    def optim_context(self, model):
        return torch.autocast('cpu', self.dtype)


class TrainingStep:
    """A training step: preprocessor, forward, backward, optimizer, target.

    ``batches`` take turns, so that no cache keeps the data of a step.
    ``optim_wrapper`` is a config as in the recipes. ``parallel`` wraps the
    model for distributed training.
    """

    def __init__(self, model: dict, batches: list[dict],
                 optim_wrapper: Optional[dict] = None,
                 parallel: Optional[Callable] = None) -> None:
        self.model = MODELS.build(model).to(device()).train()
        self.parallel = parallel(self.model) if parallel else self.model
        cfg = dict(optim_wrapper or recipe_wrapper())
        if device() == 'cpu' and cfg['type'] == 'AmpOptimWrapper':
            cfg['type'] = _CPUAutocast
        self.optim_wrapper = build_optim_wrapper(self.model, cfg)
        self.batches = cycle(batches)

    def __call__(self) -> None:
        """Run the step once."""
        self.parallel.train_step(next(self.batches), self.optim_wrapper)

    def stages(self) -> dict[str, tuple]:
        """Return objects and names of the methods that make up each stage."""
        model, wrapper = self.model, self.optim_wrapper
        return {'preprocessor': (model.data_preprocessor, 'forward'),
                'online': (model, 'forward_online'),
                'target update': (model.target_net, 'move'),
                'target': (model, 'forward_target'),
                'backward': (wrapper, 'backward'),
                'optimizer': (wrapper, 'step'),
                'gradients to zero': (wrapper, 'zero_grad')}
