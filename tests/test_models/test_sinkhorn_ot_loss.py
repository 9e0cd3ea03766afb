import numpy as np
import ot
import pytest
import torch
from formulas import instance_loss, transport
from hypothesis import given
from hypothesis import strategies as st

from univip_mm.models import SinkhornOTLoss, sinkhorn
from univip_mm.models.sinkhorn_ot_loss import marginal


def random_problem(rng, b, m, n):
    cost = rng.uniform(0, 2, (b, m, n))
    supply = rng.dirichlet(np.ones(m), b)
    demand = rng.dirichlet(np.ones(n), b)
    return cost, supply, demand


@pytest.mark.parametrize('epsilon, num_iters', [(0.1, 50), (0.1, 3),
                                                (0.5, 10), (1.0, 50)])
@pytest.mark.parametrize('m, n', [(4, 4), (3, 7), (1, 5)])
@pytest.mark.parametrize('largest_cost', [None, 2.0])
def test_sinkhorn_matches_pot(epsilon, num_iters, m, n, largest_cost):
    rng = np.random.default_rng(0)
    cost, supply, demand = random_problem(rng, 8, m, n)
    plans = sinkhorn(
        *map(torch.from_numpy, (cost, supply, demand)), epsilon, num_iters,
        largest_cost)
    in_float32 = sinkhorn(
        *(torch.from_numpy(x).float() for x in (cost, supply, demand)),
        epsilon, num_iters, largest_cost)
    for i in range(8):
        expected = ot.sinkhorn(
            supply[i], demand[i], cost[i], reg=epsilon, stopThr=0,
            numItermax=num_iters, warn=False)
        np.testing.assert_allclose(plans[i], expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(in_float32[i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('epsilon', [0.1, 0.5])
def test_sinkhorn_log_form_matches_scaling_form(epsilon):
    rng = np.random.default_rng(1)
    problem = [torch.from_numpy(x) for x in random_problem(rng, 8, 4, 4)]
    plain = sinkhorn(*problem, epsilon, 50, largest_cost=2.0)
    logarithmic = sinkhorn(*problem, epsilon, 50, largest_cost=1e6)
    torch.testing.assert_close(plain, logarithmic, rtol=0, atol=1e-12)


def test_sinkhorn_accepts_costs_of_any_size():
    supply = torch.full((1, 3), 1 / 3)
    for cost in (20., 1e4, -50.):
        plan = sinkhorn(torch.full((1, 3, 3), cost), supply, supply)
        torch.testing.assert_close(plan, torch.full((1, 3, 3), 1 / 9))


@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 64),
    n=st.integers(1, 64),
    epsilon=st.floats(1e-3, 1.0))
def test_sinkhorn_meets_the_supply(seed, m, n, epsilon):
    rng = np.random.default_rng(seed)
    cost, supply, demand = (
        torch.from_numpy(x).float() for x in random_problem(rng, 2, m, n))
    plan = sinkhorn(cost, supply, demand, epsilon, 50)
    assert torch.isfinite(plan).all() and (plan >= 0).all()
    torch.testing.assert_close(plan.sum(2), supply, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        plan.sum((1, 2)), torch.ones(2), rtol=0, atol=1e-5)


@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 64),
    n=st.integers(1, 64),
    epsilon=st.floats(-3, 0).map(lambda x: 10**x),
    num_iters=st.sampled_from([1, 5, 50]),
    share_of_zeros=st.sampled_from([0, 0.5, 0.95]),
    dtype=st.sampled_from([torch.float32, torch.float64]))
def test_sinkhorn_matches_reference_on_any_problem(
        seed, m, n, epsilon, num_iters, share_of_zeros, dtype):
    rng = np.random.default_rng(seed)
    cost, *masses = random_problem(rng, 1, m, n)
    for mass in masses:  # some masses are zero, but never all
        mass[0, 1:][rng.random(mass.shape[1] - 1) < share_of_zeros] = 0
        mass /= mass.sum()
    supply, demand = masses
    expected = transport(cost[0], supply[0], demand[0], epsilon, num_iters)
    # POT uses the scaling form: it squares exp(-2 / epsilon) and divides by
    # the supply.
    if epsilon >= 0.02 and supply.all():
        by_pot = ot.bregman.sinkhorn_knopp(
            supply[0], demand[0], cost[0], epsilon, numItermax=num_iters,
            stopThr=0, warn=False)
        np.testing.assert_allclose(expected, by_pot, rtol=0, atol=1e-9)
    problem = [torch.from_numpy(x).to(dtype) for x in (cost, supply, demand)]
    # Rounding to float32 changes a cost by 1e-7, and its exponent by
    # 1e-7 / epsilon, in each iteration.
    atol = 1e-9 if dtype == torch.float64 else 1e-5 + 2e-7 / epsilon
    for largest_cost in (None, 2.0):
        plan = sinkhorn(*problem, epsilon, num_iters, largest_cost)[0]
        np.testing.assert_allclose(plan.sum(1), supply[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(
            plan.sum(0), expected.sum(0), rtol=0, atol=atol * max(m, n))
        np.testing.assert_allclose(plan, expected, rtol=0, atol=atol)


def test_sinkhorn_meets_the_demand_once_converged():
    rng = np.random.default_rng(2)
    problem = [torch.from_numpy(x) for x in random_problem(rng, 16, 4, 4)]
    plan = sinkhorn(*problem, 0.1, 2000)
    torch.testing.assert_close(plan.sum(1), problem[2], rtol=0, atol=1e-6)


def test_sinkhorn_moves_nothing_without_mass():
    cost = torch.rand(1, 3, 3)
    supply = torch.tensor([[0., 0.25, 0.75]])
    demand = torch.tensor([[1., 0., 0.]])
    for epsilon in (0.1, 0.001):
        plan = sinkhorn(cost, supply, demand, epsilon)
        expected = torch.tensor([[[0., 0, 0], [0.25, 0, 0], [0.75, 0, 0]]])
        torch.testing.assert_close(plan, expected)


def test_marginal_is_the_share_of_positive_relevance():
    instances = torch.tensor([[[2., 0.], [1., 5.], [-3., 1.]]])
    mass, is_uniform = marginal(instances, torch.tensor([[4., 0.]]))
    torch.testing.assert_close(mass, torch.tensor([[2 / 3, 1 / 3, 0.]]))
    assert not is_uniform.any()


def test_marginal_falls_back_to_uniform():
    instances = torch.tensor([[[-2., 0.], [0., 5.]], [[1., 0.], [0., 1.]]])
    mass, is_uniform = marginal(instances, torch.tensor([[4., 0.], [1., 0.]]))
    torch.testing.assert_close(mass, torch.tensor([[.5, .5], [1., 0.]]))
    assert is_uniform.tolist() == [True, False]


@pytest.mark.parametrize('k', [1, 2, 4, 7])
@pytest.mark.parametrize('num_iters', [1, 2, 50])
def test_loss_matches_the_formulas(k, num_iters):
    rng = np.random.default_rng(k)
    o, t = rng.normal(size=(2, 6, k, 16)) + 0.3
    scene_o, scene_t = rng.normal(size=(2, 6, 16)) + 0.3
    expected = instance_loss(o, t, scene_o, scene_t, num_iters=num_iters)
    inputs = [torch.from_numpy(x) for x in (o, t, scene_o, scene_t)]
    loss = SinkhornOTLoss(num_iters=num_iters)
    assert loss(*inputs).item() == pytest.approx(expected, abs=1e-9)
    in_float32 = loss(*(x.float() for x in inputs))
    assert in_float32.item() == pytest.approx(expected, abs=1e-5)
    assert -1 <= expected <= 1


def test_loss_weight_is_a_factor():
    inputs = torch.randn(2, 4, 8), torch.randn(2, 4, 8), *torch.randn(2, 2, 8)
    once, thrice = SinkhornOTLoss(), SinkhornOTLoss(loss_weight=3.)
    torch.testing.assert_close(3 * once(*inputs), thrice(*inputs))


def test_gradient_reaches_only_online_instances():
    torch.manual_seed(0)
    o, t = torch.randn(2, 3, 4, 8).double().requires_grad_().unbind()
    o, t = o.detach().requires_grad_(), t.detach().requires_grad_()
    scene_o, scene_t = (torch.randn(3, 8).double().requires_grad_()
                        for _ in range(2))
    SinkhornOTLoss()(o, t, scene_o, scene_t).backward()
    assert t.grad is None and scene_o.grad is None and scene_t.grad is None

    # The plan is a constant, so only the cosines have a gradient.
    other = o.detach().clone().requires_grad_()
    cos = torch.nn.functional.cosine_similarity(
        other.unsqueeze(2), t.detach().unsqueeze(1), dim=-1)
    with torch.no_grad():
        plan = sinkhorn(1 - cos, marginal(other, scene_t)[0],
                        marginal(t, scene_o)[0])
    (-(cos * plan).sum((1, 2)).mean()).backward()
    torch.testing.assert_close(o.grad, other.grad)


def test_loss_is_computed_in_float32_under_autocast():
    inputs = torch.randn(2, 4, 8), torch.randn(2, 4, 8), *torch.randn(2, 2, 8)
    expected = SinkhornOTLoss()(*inputs)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(SinkhornOTLoss()(*inputs), expected)


def test_log_vars_show_uniform_plan_and_fallback():
    loss = SinkhornOTLoss()
    same = torch.ones(2, 4, 8, requires_grad=True)
    _, log_vars = loss.loss_and_log_vars(
        same, same, same[:, 0], -same[:, 0])
    assert log_vars['plan_entropy'].item() == pytest.approx(1)
    assert log_vars['uniform_marginals'].item() == 0.5
    assert not any(x.requires_grad for x in log_vars.values())
    apart = 10 * torch.eye(4, 8).expand(2, 4, 8)
    _, log_vars = loss.loss_and_log_vars(
        apart, apart, same[:, 0], same[:, 0])
    assert log_vars['plan_entropy'].item() == pytest.approx(
        0.5, abs=0.01)  # a one-to-one plan: log 4 of 2 log 4


def test_loss_uses_plan():
    torch.manual_seed(0)
    inputs = torch.randn(2, 4, 8), torch.randn(2, 4, 8), *torch.randn(2, 2, 8)
    loss = SinkhornOTLoss()
    found = loss.plan(*inputs)
    cosine = torch.nn.functional.cosine_similarity(
        inputs[0].unsqueeze(2), inputs[1].unsqueeze(1), dim=-1)
    torch.testing.assert_close(found.similarity, cosine)
    assert torch.equal(found.supply, marginal(inputs[0], inputs[3])[0])
    assert torch.equal(found.demand, marginal(inputs[1], inputs[2])[0])
    torch.testing.assert_close(found.plan.sum(2), found.supply)
    torch.testing.assert_close(
        -(found.similarity * found.plan).sum((1, 2)).mean(), loss(*inputs))


def test_subclass_must_not_override_forward():
    with pytest.raises(TypeError, match='override loss_and_log_vars'):

        class Loss(SinkhornOTLoss):

            def forward(self, *features):
                return features[0].sum()


@pytest.mark.parametrize('options, message', [
    (dict(epsilon=0), 'epsilon is 0'),
    (dict(num_iters=0), 'num_iters is 0'),
])
def test_options_out_of_range_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        SinkhornOTLoss(**options)
