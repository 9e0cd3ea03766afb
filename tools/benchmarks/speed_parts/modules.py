"""Speed of single modules: augmentation, Sinkhorn solver and EMA update."""
import argparse
from functools import partial

import torch
from mmengine.logging import MessageHub
from torch import nn

from univip_mm.models import sinkhorn
from univip_mm.models.ema import ForeachCosineEMA
from univip_mm.registry import MODELS

from .step import make_views, univip_config
from .timing import device, time_on_device


def measure_augmentation(_: argparse.Namespace) -> dict:
    """Compare our augmentation with kornia's on a batch of 64 images."""
    views = [view.to(device()) for view in make_views(64)]
    ours = MODELS.build(dict(type='UniVIPDataPreprocessor', seed=0))
    ours = ours.to(device())
    scene1, scene2 = _kornia_pipeline(1.0, 0.0), _kornia_pipeline(0.1, 0.2)
    pipelines = [scene1, scene2] + [scene1] * 4
    with torch.no_grad():
        seconds = time_on_device({
            'ours': lambda: ours(dict(inputs=views), training=True),
            'kornia': lambda: [f(view[:, [2, 1, 0]].float() / 255)
                               for f, view in zip(pipelines, views)]}, 5)
    return {'ours, s': seconds['ours'], 'kornia, s': seconds['kornia'],
            'ratio (at least 1; on a GPU 3)':
                seconds['kornia'] / seconds['ours']}


def _kornia_pipeline(blur_prob: float, solarize_prob: float) -> nn.Module:
    import kornia.augmentation as K
    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=blur_prob),
        K.RandomSolarize(thresholds=0., additions=0., p=solarize_prob),
        K.Normalize(torch.tensor([0.485, 0.456, 0.406]),
                    torch.tensor([0.229, 0.224, 0.225])),
        data_keys=['input'], same_on_batch=False).to(device())


def measure_sinkhorn(_: argparse.Namespace) -> dict:
    """Compare the solver with a log-domain loop at B 64, K 4, T 50."""
    problem = transport_problem(64, 4)
    seconds = time_on_device({
        'ours': partial(sinkhorn, *problem, largest_cost=2.0),
        'loop': partial(_log_sinkhorn, *problem)}, repeats=30)
    gap = sinkhorn(*problem, largest_cost=2.0) - _log_sinkhorn(*problem)
    return {'ours, ms': 1e3 * seconds['ours'],
            'logsumexp, ms': 1e3 * seconds['loop'],
            'ratio (at least 3)': seconds['loop'] / seconds['ours'],
            'largest difference (at most 1e-5)': gap.abs().max().item()}


def transport_problem(batch_size: int, num_instances: int) -> list:
    """Return random cost (B, K, K), supply (B, K) and demand (B, K)."""
    generator = torch.Generator().manual_seed(0)
    size = batch_size, num_instances
    cost = 2 * torch.rand(*size, num_instances, generator=generator)
    masses = torch.rand(2, *size, generator=generator)
    masses /= masses.sum(2, keepdim=True)
    return [x.to(device()) for x in (cost, *masses)]


def _log_sinkhorn(cost, supply, demand, epsilon=0.1, num_iters=50):
    """Solve the problem by a plain loop of logsumexp."""
    exponent = -cost / epsilon
    log_u = torch.zeros_like(supply)
    for _ in range(num_iters):
        log_v = demand.log() - torch.logsumexp(exponent + log_u[:, :, None], 1)
        log_u = supply.log() - torch.logsumexp(exponent + log_v[:, None], 2)
    return (exponent + log_u[:, :, None] + log_v[:, None]).exp()


def measure_ema(args: argparse.Namespace) -> dict:
    """Compare our EMA update with the host's on backbone and projector."""
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    cfg = univip_config(args.depth)
    model = nn.Sequential(MODELS.build(cfg.backbone), MODELS.build(cfg.neck))
    model = model.to(device())
    ours, host = (cls(model, momentum=0.01).to(device())
                  for cls in (ForeachCosineEMA, MODELS.get('CosineEMA')))
    seconds = time_on_device({
        'ours': partial(ours.update_parameters, model),
        'loop': partial(host.update_parameters, model)}, repeats=10)
    parameters = sum(x.numel() for x in model.parameters())
    return {'million numbers': parameters / 1e6,
            'ours, ms': 1e3 * seconds['ours'],
            "host's loop, ms": 1e3 * seconds['loop'],
            'ratio (on a GPU at least 3)': seconds['loop'] / seconds['ours'],
            # Two reads and one write of 4 bytes per parameter.
            'ours, GB/s': 12e-9 * parameters / seconds['ours']}
