import numpy as np
import pytest
import torch
from formulas import instance_loss

from univip_mm.models import SinkhornOTLoss, sinkhorn
from univip_mm.models.sinkhorn_ot_loss import marginal


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


@pytest.mark.parametrize('plan_gradient', [False, True])
def test_gradient_is_that_of_pot(plan_gradient):
    ot = pytest.importorskip('ot')
    rng = np.random.default_rng(1)
    o, t = rng.normal(size=(2, 4, 8)) + 1  # positive supply and demand
    scene_o, scene_t = rng.normal(size=(2, 8)) + 1
    supply, demand = (
        marginal(torch.from_numpy(x)[None], torch.from_numpy(scene)[None]
                 )[0][0].numpy() for x, scene in ((o, scene_t), (t, scene_o)))

    def plan_of(similarity):
        return ot.sinkhorn(supply, demand, 1 - similarity, 0.1,
                           numItermax=5000, stopThr=1e-13)

    def similarity_of(o):
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (o, t))
        return a @ b.T

    fixed = plan_of(similarity_of(o))

    def loss_of(o):
        similarity = similarity_of(o)
        plan = plan_of(similarity) if plan_gradient else fixed
        return -(similarity * plan).sum()

    expected = np.empty_like(o)
    for index in np.ndindex(*o.shape):
        step = np.zeros_like(o)
        step[index] = 1e-5
        expected[index] = (loss_of(o + step) - loss_of(o - step)) / 2e-5
    inputs = [torch.from_numpy(x)[None].requires_grad_()
              for x in (o, t, scene_o, scene_t)]
    loss = SinkhornOTLoss(num_iters=2000, plan_gradient=plan_gradient)
    loss(*inputs).backward()
    np.testing.assert_allclose(inputs[0].grad[0], expected, atol=1e-6)
    assert all(x.grad is None for x in inputs[1:])


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


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'),
                    reason='compiled with PyTorch 2.4 and later')
def test_loss_compiles_in_one_graph_with_equal_results():
    torch.manual_seed(0)
    inputs = torch.randn(2, 4, 8), torch.randn(2, 4, 8), *torch.randn(2, 2, 8)
    loss = SinkhornOTLoss(num_iters=3).loss_and_log_vars
    results = []
    for call in (loss, torch.compile(
            loss, backend='aot_eager', fullgraph=True)):
        o = inputs[0].clone().requires_grad_()
        value, log_vars = call(o, *inputs[1:])
        value.backward()
        results.append([value, o.grad, *log_vars.values()])
    for expected, found in zip(*results):
        assert torch.equal(found, expected)
