"""Train a small UniVIP in float16 with a learning rate that is far too high.

The network may diverge; then the training restarts with other weights. The
loss code may not fail: for finite features, it must return finite losses, log
values and gradients.

The script checks the output of each layer of both branches, in call order. For
each call of the loss code (cosine losses, instance loss, ``projection_std``),
it checks the inputs, the result and the gradients of the inputs, at a loss
scale of 1.
"""
import argparse
import math
import time
from collections import Counter

import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from torch import nn

from univip_mm.models import univip
from univip_mm.registry import MODELS

K, C, BATCH = 4, 32, 8

EXAMPLE = '''
examples:
  python tests/soak/diverging_training.py
a learning rate with which every network diverges:
  python tests/soak/diverging_training.py --lr-factor 10000 --loss-scale 1
the script must find the fault of a loss that is known to fail:
  python tests/soak/diverging_training.py --steps 200 --control
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=5000,
                        help='number of steps (default: %(default)s)')
    parser.add_argument('--lr-factor', type=float, default=10,
                        help="factor of the demo's learning rate of 0.1 "
                        '(default: %(default)s)')
    parser.add_argument('--loss-scale', type=float,
                        help='fixed loss scale (default: dynamic, as in AMP)')
    parser.add_argument('--dtype', default='float16',
                        choices=['float16', 'bfloat16', 'float32'],
                        help='type of autocast; float32 turns it off '
                        '(default: %(default)s)')
    parser.add_argument('--control', action='store_true',
                        help='use a textbook instance loss, which fails')
    parser.add_argument('--seed', type=int, default=0,
                        help='random seed (default: %(default)s)')
    return parser.parse_args()


@MODELS.register_module()
class SmallConvNet(nn.Sequential):
    """Backbone of three convolutions: (B, 3, H, W) → ((B, 32, H/8, W/8),)."""

    def __init__(self) -> None:
        layers = []
        for before, after in ((3, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1),
                       nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers)

    def init_weights(self) -> None:
        """Keep PyTorch's initialization."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (super().forward(x), )


@MODELS.register_module()
class TextbookOTLoss(nn.Module):
    """Direct implementation of the formulas, without numerical safeguards.

    It divides by norms, uses zero marginals, and adds 1e-8 inside logarithms.
    """

    def forward(self, o, t, scene_o, scene_t):
        cos = torch.einsum('bmc,bnc->bmn', o / o.norm(dim=-1, keepdim=True),
                           t / t.norm(dim=-1, keepdim=True))
        supply = torch.einsum('bkc,bc->bk', o, scene_t).relu()
        demand = torch.einsum('bkc,bc->bk', t, scene_o).relu()
        log_b, log_a = (supply + 1e-8).log(), (demand + 1e-8).log()
        exponent = (cos - 1) / 0.1
        log_u = torch.zeros_like(log_b)
        for _ in range(50):
            log_v = log_a - (exponent + log_u.unsqueeze(2)).logsumexp(1)
            log_u = log_b - (exponent + log_v.unsqueeze(1)).logsumexp(2)
        plan = (exponent + log_u.unsqueeze(2) + log_v.unsqueeze(1)).exp()
        return -(cos * plan).sum((1, 2)).mean()


def build(control: bool) -> nn.Module:
    mlp = dict(type='NonLinearNeck', hid_channels=64, out_channels=C,
               num_layers=2, with_bias=True, with_last_bn=False,
               norm_cfg=dict(type='BN1d'))
    kind = 'TextbookOTLoss' if control else 'SinkhornOTLoss'
    return MODELS.build(
        dict(
            type='UniVIP',
            backbone=dict(type='SmallConvNet'),
            neck=dict(mlp, in_channels=32, with_avg_pool=True),
            head=dict(
                type='LatentPredictHead',
                loss=dict(type='CosineSimilarityLoss'),
                predictor=dict(mlp, in_channels=C, with_avg_pool=False)),
            fusion_neck=dict(type='UniVIPNeck', in_channels=C,
                             num_instances=K, out_channels=C),
            instance_loss=dict(type=kind)))


def draw_views(generator: torch.Generator) -> list:
    """Crop scenes and instances from smooth noise."""
    coarse = torch.randn(BATCH, 3, 8, 8, generator=generator)
    image = nn.functional.interpolate(coarse, size=48, mode='bicubic')
    image = image + 0.1 * torch.randn(image.shape, generator=generator)
    views = []
    for size in [32, 32] + [16] * K:
        x, y = torch.randint(0, 49 - size, (2, ), generator=generator)
        views.append(image[..., y:y + size, x:x + size].contiguous())
    return views


def all_finite(values) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in values
               if isinstance(x, torch.Tensor))


class Watch:
    """Search for the first non-finite value of each step.

    Attributes:
        first (str, optional): Place of the first non-finite value of the step.
        faults (Counter): Faults of the loss code by place.
        calls (int): Calls of the loss code with finite features.
        smallest (float): Smallest norm above 0 of the features in these calls.
        largest (float): Largest norm of these features.
    """

    def __init__(self) -> None:
        self.first = None
        self.faults = Counter()
        self.calls = 0
        self.smallest, self.largest = math.inf, 0.

    def attach(self, model: nn.Module) -> None:
        for name, layer in model.named_modules():
            if not list(layer.children()) and name:
                layer.register_forward_hook(self._layer_hook(name))
        model.scene_terms = self._watched('scene losses', model.scene_terms)
        model.instance_term = self._watched(
            'instance loss', model.instance_term)

    def attach_projection_std(self) -> None:
        univip.projection_std = self._watched('projection_std',
                                              univip.projection_std)

    def _layer_hook(self, name: str):

        def hook(layer, inputs, output):
            if self.first is None and not all_finite([output]):
                self.first = name

        return hook

    def _watched(self, name: str, function):

        def call(*features):
            out = function(*features)
            result, log_vars = out if isinstance(out, tuple) else (out, {})
            if isinstance(log_vars, torch.Tensor):  # two losses
                result, log_vars = result + log_vars, {}
            if not all_finite(features):
                if self.first is None:  # not an output of a layer
                    self.first = f'input of the {name}'
                    self.faults[self.first] += 1
                return out
            self.calls += 1
            norms = torch.cat([x.detach().float().norm(dim=-1).flatten()
                               for x in features])
            self.largest = max(self.largest, norms.max().item())
            self.smallest = min(self.smallest, norms[norms > 0].min().item()
                                if (norms > 0).any() else math.inf)
            inputs = [x for x in features if x.requires_grad]
            gradients = torch.autograd.grad(
                result, inputs, retain_graph=True,
                allow_unused=True) if result.requires_grad else []
            for what, values in (('value', [result]),
                                 ('log value', log_vars.values()),
                                 ('gradient', gradients)):
                if not all_finite(values):
                    self.faults[f'{name}: {what}'] += 1
                    self.first = self.first or name
            return out

        return call


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    DefaultScope.get_instance('soak', scope_name='univip_mm')
    MessageHub.get_current_instance().update_info('max_iters', args.steps)
    generator = torch.Generator().manual_seed(args.seed)
    watch, model = Watch(), None
    watch.attach_projection_std()
    diverged, restarts, too_large, lived = Counter(), 0, 0, 0
    for step in range(args.steps):
        if model is None:
            torch.manual_seed(args.seed + restarts)
            model = build(args.control)
            watch.attach(model)
            optimizer = torch.optim.SGD(
                [x for x in model.parameters() if x.requires_grad],
                lr=0.1 * args.lr_factor, momentum=0.9, weight_decay=1e-4)
            scaler = torch.amp.GradScaler(
                'cpu', init_scale=args.loss_scale or 2.**16,
                growth_interval=2000 if args.loss_scale is None else 2**31 - 1,
                backoff_factor=0.5 if args.loss_scale is None else 1 - 1e-9)
        watch.first = None
        with torch.autocast('cpu', getattr(torch, args.dtype),
                            enabled=args.dtype != 'float32'):
            terms = model.loss(draw_views(generator))
        lived += 1
        if watch.first is not None:
            diverged[watch.first] += 1
            print(f'step {step}, {lived} after the (re)start: first '
                  f"non-finite value in '{watch.first}'", flush=True)
            model, restarts, lived = None, restarts + 1, 0
            continue
        loss = sum(value for key, value in terms.items() if 'loss' in key)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        too_large += scaler.get_scale() < before
        if step % 500 == 0:
            print(f'step {step}: ' + ', '.join(
                f'{key} {value.item():.3f}' for key, value in terms.items())
                + f', loss scale {before:g}', flush=True)
    report(args, watch, diverged, restarts, too_large)


def report(args: argparse.Namespace, watch: Watch, diverged: Counter,
           restarts: int, too_large: int) -> None:
    rows = [
        ('steps', args.steps),
        ('precision, learning rate', f'{args.dtype}, {0.1 * args.lr_factor:g}'
         f' ({args.lr_factor:g} x too high)'),
        ('steps with gradient overflow', too_large),
        ('networks that diverged', restarts),
        *(('  first non-finite value in', f'{place}: {number}')
          for place, number in diverged.most_common()),
        ('loss calls with finite features', watch.calls),
        ('norms of these features',
         f'{watch.smallest:.1e} to {watch.largest:.1e}'),
        ('faults of the loss code', sum(watch.faults.values())),
        *(('  among them', f'{place}: {number}')
          for place, number in watch.faults.most_common()),
        ('CPU seconds', f'{time.process_time():.0f}'),
    ]
    print('\n'.join(f'{name:42}{value}' for name, value in rows))
    if bool(watch.faults) != args.control:
        raise SystemExit('FAILED: ' + (
            'the loss code is not finite for finite features'
            if watch.faults else 'the failing loss was not found'))


if __name__ == '__main__':
    main()
