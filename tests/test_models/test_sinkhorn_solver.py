import importlib
import os
import subprocess
import sys

import numpy as np
import ot
import pytest
import torch
from formulas import transport
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from univip_mm.models import sinkhorn, sinkhorn_solver

needs_operators = pytest.mark.skipif(
    not hasattr(torch.library, 'custom_op'), reason='needs PyTorch 2.4')
# Triton's interpreter must be chosen before Triton is imported. The file is
# loaded without its package, which imports in seconds.
INTERPRET = '''
import sys
from importlib.util import module_from_spec, spec_from_file_location
import numpy as np
import torch
spec = spec_from_file_location('kernel', sys.argv[1])
kernel = module_from_spec(spec)
spec.loader.exec_module(kernel)
problems = np.load(sys.argv[2])
plans = {}
for name in {x.split('/')[0] for x in problems}:
    problem = [torch.from_numpy(problems[f'{name}/{i}']) for i in range(3)]
    plans[name] = kernel.solve(*problem, 0.1, 50).numpy()
np.savez(sys.argv[3], **plans)
'''


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


def problem_with_zero_masses(rng, m, n):
    """Return two images in float32; the first has masses of zero."""
    cost, *masses = random_problem(rng, 2, m, n)
    for mass in masses:
        mass[0, 1::2] = 0
        mass /= mass.sum(1, keepdims=True)
    return [x.astype(np.float32) for x in (cost, *masses)]


def test_kernel_matches_float64_and_pot_in_interpreter(tmp_path):
    pytest.importorskip('triton')
    rng = np.random.default_rng(0)
    problems = {f'{m} {n}': problem_with_zero_masses(rng, m, n) for m, n in (
        (1, 1), (1, 5), (4, 4), (17, 33), (64, 64))}
    np.savez(tmp_path / 'problems.npz', **{
        f'{name}/{i}': x for name, problem in problems.items()
        for i, x in enumerate(problem)})
    subprocess.run(
        [sys.executable, '-c', INTERPRET,
         sinkhorn_solver.__file__.replace('_solver', '_triton'),
         tmp_path / 'problems.npz', tmp_path / 'plans.npz'],
        env=dict(os.environ, TRITON_INTERPRET='1'), check=True)
    plans = np.load(tmp_path / 'plans.npz')
    for name, problem in problems.items():
        cost, supply, demand = (x.astype(np.float64) for x in problem)
        for i, plan in enumerate(plans[name]):
            expected = transport(cost[i], supply[i], demand[i], 0.1, 50)
            np.testing.assert_allclose(plan, expected, rtol=0, atol=1e-6)
            assert (plan[supply[i] == 0] == 0).all()
            assert (plan[:, demand[i] == 0] == 0).all()
        by_pot = ot.bregman.sinkhorn_knopp(
            supply[1], demand[1], cost[1], 0.1, numItermax=50, stopThr=0,
            warn=False)
        np.testing.assert_allclose(plan, by_pot, rtol=0, atol=1e-6)


@pytest.mark.parametrize('side', [1, 4, 64])
def test_kernel_compiles_for_a_gpu(side, tmp_path, monkeypatch):
    triton = pytest.importorskip('triton', minversion='3.3')
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    compiler = importlib.import_module('triton.backends.compiler')
    kernel = importlib.import_module(
        'univip_mm.models.sinkhorn_triton')._scaling_kernel
    constants = dict(num_iters=50, M=side, N=side, ROWS=side, COLUMNS=side)
    signature = dict.fromkeys(('cost', 'supply', 'demand', 'plan'), '*fp32')
    source = triton.compiler.ASTSource(
        kernel, constexprs=constants, signature=dict(
            signature, epsilon='fp32', **dict.fromkeys(
                constants, 'constexpr')))
    assert triton.compile(source, target=compiler.GPUTarget('cuda', 90, 32),
                          options=dict(num_warps=4)).asm['ptx']


@pytest.fixture
def any_problem_fits(monkeypatch):
    """Send CPU problems to the operator, in which no kernel can run."""
    monkeypatch.setattr(sinkhorn_solver, '_fits_kernel', lambda *_: True)
    monkeypatch.setattr(sinkhorn_solver, '_kernel_failed', False)
    monkeypatch.setitem(
        sys.modules, 'univip_mm.models.sinkhorn_triton', None)
    return [torch.from_numpy(x) for x in problem_with_zero_masses(
        np.random.default_rng(0), 3, 7)]


def test_sinkhorn_without_kernel_warns_once(any_problem_fits, logged):
    expected = sinkhorn_solver._solve_scaling(*any_problem_fits, 0.1, 50)
    for _ in range(2):
        plan = sinkhorn(*any_problem_fits, largest_cost=2.0)
        assert torch.equal(plan, expected)
    assert len(logged) == 1 and 'gcc' in logged[0]


@needs_operators
def test_sinkhorn_operator_is_one_node_of_a_graph(any_problem_fits):
    nodes = []

    def backend(graph, inputs):
        nodes.extend(
            str(x.target) for x in graph.graph.nodes if x.op != 'output')
        return graph

    expected = sinkhorn(*any_problem_fits, largest_cost=2.0)
    solve = torch.compile(sinkhorn, backend=backend, fullgraph=True)
    plan = solve(*any_problem_fits, largest_cost=2.0)
    assert torch.equal(plan, expected)
    assert sum('univip_mm.sinkhorn' in x for x in nodes) == 1
    assert not any('bmm' in x for x in nodes)
    torch.library.opcheck(
        sinkhorn_solver._solve_fused, (*any_problem_fits, 0.1, 3))


@needs_operators
@pytest.mark.parametrize('k, epsilon, options, is_operator', [
    (64, 0.1, {}, True),
    (65, 0.1, {}, False),
    (4, 0.01, {}, False),  # on logarithms
    (4, 0.1, dict(dtype=torch.float64), False),
    (4, 0.1, dict(requires_grad=True), False)])
def test_sinkhorn_operator_solves_gpu_problems(
        k, epsilon, options, is_operator):
    class Watch(TorchDispatchMode):
        found = False

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.found |= 'univip_mm' in str(function)
            return function(*args, **(kwargs or {}))

    with FakeTensorMode():  # tensors of a GPU without a GPU
        cost = torch.empty(2, k, k, device='cuda', **options)
        mass = torch.empty(2, k, device='cuda', dtype=cost.dtype)
        with Watch() as watch:
            plan = sinkhorn(cost, mass, mass, epsilon, 3, largest_cost=2.0)
    assert watch.found == is_operator
    assert plan.shape == cost.shape and plan.dtype == cost.dtype
    assert plan.is_cuda and plan.requires_grad == cost.requires_grad
