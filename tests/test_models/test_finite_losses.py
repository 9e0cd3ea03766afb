"""Losses and gradients are finite for every finite feature."""
import contextlib

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmengine.model import BaseModule

from univip_mm.models import SinkhornOTLoss
from univip_mm.models.sinkhorn_ot_loss import marginal
from univip_mm.models.univip import projection_std
from univip_mm.registry import MODELS

B, C = 2, 16
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
KINDS = ('random', 'zero', 'same', 'opposite', 'negative', 'one')
TERMS = ('loss_scene', 'loss_scene_instance', 'loss_instance')


def autocast(dtype):
    return (contextlib.nullcontext() if dtype is None else torch.autocast(
        'cpu', dtype))


def casts():
    """Yield None (no autocast) and the autocast types on this CPU."""
    for dtype in (None, torch.bfloat16, torch.float16):
        try:
            with autocast(dtype):
                yield dtype
        except RuntimeError:  # float16, before 2.3
            pass


def features(kind, k, seed):
    """Return features of norm 1 or 0.

    The order is online scene (B, C), target scene, online instances
    (B, K, C), target instances.
    """
    generator = torch.Generator().manual_seed(seed)
    scene_o, scene_t = torch.randn(2, B, C, generator=generator)
    o, t = torch.randn(2, B, k, C, generator=generator)
    if kind == 'zero':
        o, scene_t = torch.zeros_like(o), torch.zeros_like(scene_t)
    elif kind == 'same':
        o = t = o[:, :1].expand_as(o)
        scene_o = scene_t = o[:, 0]
    elif kind == 'opposite':
        t, scene_t = -o, -scene_o
    elif kind == 'negative':  # no relevant instance
        o, t = (-scene.unsqueeze(1).expand_as(o) for scene in
                (scene_t, scene_o))
    elif kind == 'one':  # one relevant instance, the others are zero
        o, t = torch.zeros(2, B, k, C)
        o[:, k // 2], t[:, k // 3] = scene_t, scene_o
    return [torch.nn.functional.normalize(x, dim=-1)
            for x in (scene_o, scene_t, o, t)]


def scaled(x, exponent, dtype):
    """Scale to norm 10 ** exponent, clamped to the range of the type."""
    largest = torch.finfo(dtype).max
    return (x.double() * 10.0**exponent).clamp(-largest, largest).to(dtype)


AUTOCASTS = tuple(casts())
inputs = dict(
    kind=st.sampled_from(KINDS),
    exponents=st.tuples(*[st.floats(-20, 18)] * 4),
    k=st.one_of(st.integers(1, 8), st.integers(1, 64)),
    epsilon=st.floats(-3, 0).map(lambda x: 10**x),
    dtype=st.sampled_from(DTYPES),
    cast=st.sampled_from(AUTOCASTS),
    seed=st.integers(0, 2**31))


@settings(max_examples=500)
@given(plan_gradient=st.booleans(), **inputs)
def test_instance_loss_is_finite(plan_gradient, kind, exponents, k, epsilon,
                                 dtype, cast, seed):
    scene_o, scene_t, o, t = (
        scaled(x, e, dtype)
        for x, e in zip(features(kind, k, seed), exponents))
    o.requires_grad_()
    module = SinkhornOTLoss(epsilon, plan_gradient=plan_gradient)
    with autocast(cast):
        loss, log_vars = module.loss_and_log_vars(o, t, scene_o, scene_t)
    loss.backward()
    assert loss.dtype == torch.float32 and -1.001 <= loss <= 1.001
    assert torch.isfinite(o.grad).all()
    for value in log_vars.values():
        assert -1e-6 <= value <= 1.001


@given(**inputs)
def test_marginal_sums_to_1(kind, exponents, k, epsilon, dtype, cast,
                                  seed):
    _, scene, o, _ = (scaled(x, e, dtype)
                      for x, e in zip(features(kind, k, seed), exponents))
    mass, is_uniform = marginal(o, scene)
    assert (mass >= 0).all()
    torch.testing.assert_close(mass.sum(1), torch.ones(B), rtol=0, atol=1e-5)
    relevance = torch.einsum('bkc,bc->bk', o.double(), scene.double())
    # Bound of the rounding error of a product.
    doubt = 1e-5 * (o.double().norm(dim=2) *
                    scene.double().norm(dim=1, keepdim=True)).amax(1)
    positive = relevance.clamp_min(0).sum(1)
    clear = positive > 100 * k * doubt
    assert not is_uniform[clear].any()
    assert is_uniform[(relevance <= 0).all(1) & (doubt == 0)].all()
    expected = relevance.clamp_min(0) / positive.unsqueeze(1)
    torch.testing.assert_close(mass[clear].double(), expected[clear], rtol=0,
                               atol=0.02)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('k', [1, 4, 64])
def test_marginal_is_uniform_without_relevance(dtype, k):
    for kind in ('zero', 'negative'):
        _, scene, o, _ = (x.to(dtype) for x in features(kind, k, 0))
        mass, is_uniform = marginal(o, scene)
        assert is_uniform.all()
        assert torch.equal(mass, torch.full((B, k), 1 / k))


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('exponent', [-20, 0, 18])
def test_marginal_of_single_relevant_instance(dtype, exponent):
    _, scene, o, _ = features('one', 64, 0)
    if dtype == torch.float16 and exponent < 0:
        exponent = -5  # the smallest float16 number is 6e-8
    mass, is_uniform = marginal(
        scaled(o, exponent, dtype), scaled(scene, exponent, dtype))
    assert not is_uniform.any()
    assert torch.equal(mass, torch.eye(64)[[32, 32]])


class FirstHalf(BaseModule):
    """Backbone stub that returns the online half of its input."""

    def forward(self, x):
        return (x[:, :C], )


class SecondHalf(FirstHalf):
    """EMA stub that returns the target half of its input."""

    def forward(self, x):
        return (x[:, C:], )

    def next_momentum(self, model):
        return 0.

    def move(self, model, momentum):
        pass


class Unchanged(BaseModule):

    def forward(self, x):
        return (x[0] if isinstance(x, (list, tuple)) else x, )


class FirstInstance(BaseModule):

    def forward(self, x):
        return (x[0][:, 0], )


@pytest.fixture(scope='module')
def univip():
    """UniVIP whose views are features (B, 2 C): online, then target."""
    model = MODELS.build(
        dict(
            type='UniVIP',
            backbone=dict(type=FirstHalf),
            neck=dict(type=Unchanged),
            head=dict(
                type='LatentPredictHead',
                predictor=dict(type=Unchanged),
                loss=dict(type='mmpretrain.CosineSimilarityLoss')),
            fusion_neck=dict(type=FirstInstance),
            instance_loss=dict(type='SinkhornOTLoss')))
    model.target_net = SecondHalf()
    return model


@settings(max_examples=300)
@given(**inputs)
def test_univip_terms_are_finite(univip, kind, exponents, k, epsilon,
                                        dtype, cast, seed):
    # torch.stack rejects float16 under bfloat16 autocast, and vice versa.
    assume(cast in (None, dtype) or dtype == torch.float32)
    scene_o, scene_t, o, t = (
        scaled(x, e, dtype)
        for x, e in zip(features(kind, k, seed), exponents))
    scene = torch.cat([scene_o, scene_t], 1)
    views = [scene, scene.clone(),
             *torch.cat([o, t], 2).unbind(1)]
    views = [view.requires_grad_() for view in views]
    univip.instance_loss.epsilon = epsilon
    with autocast(cast):
        out = univip.loss(views)
    for name, value in out.items():
        assert torch.isfinite(value), name
    assert abs(out['loss_scene']) <= 2.001
    assert abs(out['loss_scene_instance']) <= 2.001
    for name in TERMS:
        gradients = torch.autograd.grad(
            out[name], views, retain_graph=True, allow_unused=True)
        assert all(torch.isfinite(x).all() for x in gradients
                   if x is not None), name
    sum(out[name] for name in TERMS).backward()
    assert all(torch.isfinite(view.grad).all() for view in views)


@given(
    kind=st.sampled_from(KINDS),
    exponent=st.floats(-20, 18),
    number=st.integers(1, 64),
    dtype=st.sampled_from(DTYPES),
    cast=st.sampled_from(AUTOCASTS),
    seed=st.integers(0, 2**31))
def test_projection_std_is_finite(kind, exponent, number, dtype, cast,
                                         seed):
    projections = features(kind, number, seed)[2][0]
    with autocast(cast):
        spread = projection_std(scaled(projections, exponent, dtype))
    assert 0 <= spread <= 1.001
