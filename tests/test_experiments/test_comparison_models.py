"""BYOL in UniVIP's code is the host's BYOL; all methods start equal."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from experiments.byol_comparison.models import initialize
from experiments.byol_comparison.settings import Experiment, Run
from experiments.byol_comparison.training import build_model, load_config
from univip_mm.models.univip import projection_std
from univip_mm.registry import HOOKS, MODELS


def build(method, seed=1, **changes):
    cfg = load_config(Experiment(**changes), Run(method, seed))
    return build_model(cfg)


def host_byol(model):
    """Return the host's BYOL with the weights of a model."""
    cfg = load_config(Experiment(), Run('byol', 1)).model
    byol = MODELS.build(dict(
        type='BYOL', backbone=cfg.backbone, neck=cfg.neck, head=cfg.head,
        base_momentum=cfg.base_momentum))
    for part in ('backbone', 'neck', 'head'):
        getattr(byol, part).load_state_dict(getattr(model, part).state_dict())
    return byol


def test_scene_byol_takes_the_steps_of_the_host():
    MessageHub.get_current_instance().update_info('max_iters', 10)
    ours = build('byol').double()
    host = host_byol(ours).double()
    # The host's loss is twice ours: half the learning rate, equal steps.
    optimizers = [torch.optim.SGD(m.parameters(), lr, momentum=0.9)
                  for m, lr in ((ours, 0.2), (host, 0.1))]
    torch.manual_seed(0)
    for _ in range(3):
        views = [torch.randn(8, 3, 64, 64).double() for _ in range(2)]
        losses = []
        for model, optimizer in zip((ours, host), optimizers):
            values = model.train().loss(list(views), [])
            losses.append(sum(x for name, x in values.items()
                              if 'loss' in name))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        assert 2 * losses[0].item() == pytest.approx(losses[1].item(),
                                                     abs=1e-9)
    for part in ('backbone', 'neck', 'head', 'target_net'):
        for a, b in zip(getattr(ours, part).parameters(),
                        getattr(host, part).parameters()):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_scene_byol_logs_the_spread_of_the_projections():
    MessageHub.get_current_instance().update_info('max_iters', 10)
    model = build('byol').train()
    views = [torch.randn(8, 3, 64, 64) for _ in range(2)]
    logged = model.loss(views, [])['projection_std']
    with torch.no_grad():
        wanted = projection_std(model.neck(model.backbone(views[0]))[0])
    torch.testing.assert_close(logged, wanted)


def test_methods_of_a_seed_have_equal_weights():
    models = [build(x) for x in ('byol', 'byol_overlap', 'univip')]
    for part in ('backbone', 'neck', 'head'):
        first, *others = (getattr(x, part).state_dict() for x in models)
        for other in others:
            torch.testing.assert_close(other, first, rtol=0, atol=0)
    other_seed = build('univip', seed=2)
    assert not torch.equal(other_seed.backbone.conv1.weight,
                           models[0].backbone.conv1.weight)


def test_training_starts_from_the_weights_of_the_seed():
    cfg = load_config(Experiment(), Run('univip', 4))
    hook, = (HOOKS.build(x) for x in cfg.custom_hooks)
    model = build('univip', seed=9)
    hook.before_run(SimpleNamespace(model=model))
    wanted = build('byol', seed=4)
    for part in ('backbone', 'neck', 'head'):
        torch.testing.assert_close(
            getattr(model, part).state_dict(),
            getattr(wanted, part).state_dict(), rtol=0, atol=0)


def test_initialize_keeps_the_random_state():
    model = build('byol')
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    initialize(model, 7)
    assert torch.equal(torch.rand(2), wanted)


def test_zero_sum_can_be_turned_off():
    for options, low, high in (((), 0, 1e-4),
                               (('start.zero_sum=False', ), 0.1, 100)):
        cfg = load_config(Experiment(), Run('byol', 1, 'x', options))
        sums = build_model(cfg).backbone.conv1.weight.sum((1, 2, 3))
        assert low <= sums.abs().max() < high
