import copy

import pytest
import torch
from mmengine.utils import digit_version
from ranks import run_ranks
from torch import nn

from univip_mm.models.batch_norm import count_batches, prepare_batch_norm

SHAPES = (6, 5), (6, 5, 3, 4)
COMPILES = digit_version(torch.__version__) >= digit_version('2.11')


def case(dtype, shape, affine=True):
    """Return a layer, inputs of all processes, and gradients of the output.

    The mean is large, so that sums of squares would lose digits.
    """
    torch.manual_seed(0)
    layer = nn.SyncBatchNorm(5, affine=affine).to(dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(shape, dtype=torch.float64) * 2 + 50
    x += torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
    return layer, x.to(dtype), torch.randn(shape).to(dtype)


def run(layer, x, gradient, function=None):
    """Return outputs, gradients and running statistics of two passes."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    for _ in range(2):
        y = layer(x) if function is None else function(x)
    y.backward(gradient)
    return dict(
        y=y.detach(), x=x.grad, mean=layer.running_mean, var=layer.running_var,
        **{name: p.grad for name, p in layer.named_parameters()})


def run_compiled(layer, *args):
    layer = copy.deepcopy(layer)
    return run(layer, *args, torch.compile(layer, backend='aot_eager',
                                           fullgraph=True))


def rank_results(rank):
    """Return results of this process's part of the inputs."""
    part = slice(None, 2) if rank == 0 else slice(2, None)
    results = {}
    for dtype in (torch.float64, torch.float32):
        for shape in SHAPES:
            layer, x, gradient = case(dtype, shape)
            prepare_batch_norm(layer)
            results[dtype, shape] = run(layer, x[part], gradient[part])
    count_batches(layer, 2)
    layer.eval()
    results['eval'] = dict(y=layer(x).detach(), n=layer.num_batches_tracked)
    free, x, gradient = case(torch.float32, SHAPES[1], affine=False)
    prepare_batch_norm(free)
    results['free'] = run(free, x[part], gradient[part])
    layer, x, gradient = case(torch.float32, SHAPES[1])
    prepare_batch_norm(layer)
    results['channels last'] = run(
        copy.deepcopy(layer), x[part].to(memory_format=torch.channels_last),
        gradient[part])
    half = x[part].bfloat16(), gradient[part].bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        results['bfloat16'] = run(copy.deepcopy(layer), *half)
        if COMPILES:
            results['compiled bfloat16'] = run_compiled(layer, *half)
    if COMPILES:
        results['compiled'] = run_compiled(layer, x[part], gradient[part])
    # Lists, because a forked process cannot share the memory of tensors.
    return {key: {name: (y.dtype, y.tolist()) for name, y in found.items()}
            for key, found in results.items()}


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """Return the results of both processes, by case, as tensors."""
    found = run_ranks(rank_results, tmp_path_factory.mktemp('group'))
    for results in found:
        assert isinstance(results, dict), results
    return [{key: {name: torch.tensor(y, dtype=dtype)
                   for name, (dtype, y) in values.items()}
             for key, values in results.items()} for results in found]


def assert_matches_whole_batch(ranks, key, layer, x, gradient, **tolerance):
    """Compare with PyTorch's batch norm in one process, in float64."""
    expected = run(copy.deepcopy(layer).double(), x.double(),
                   gradient.double())
    found = [results[key] for results in ranks]
    for name, value in expected.items():
        values = [x[name].double() for x in found]
        if name in ('x', 'y'):
            value, values = value, [torch.cat(values)]
        elif name in ('weight', 'bias'):  # the wrapper averages them
            values = [sum(values)]
        for other in values:
            torch.testing.assert_close(other, value, **tolerance, msg=name)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_sync_batch_norm_matches_whole_batch(ranks, dtype, shape, tolerance):
    assert_matches_whole_batch(
        ranks, (dtype, shape), *case(dtype, shape), rtol=tolerance,
        atol=tolerance)


def test_sync_batch_norm_without_weights_matches_whole_batch(ranks):
    assert_matches_whole_batch(
        ranks, 'free', *case(torch.float32, SHAPES[1], affine=False),
        rtol=1e-5, atol=1e-5)


def test_sync_batch_norm_accepts_channels_last(ranks):
    assert_matches_whole_batch(
        ranks, 'channels last', *case(torch.float32, SHAPES[1]), rtol=1e-5,
        atol=1e-5)


def test_sync_batch_norm_has_float32_statistics_in_bfloat16(ranks):
    layer, x, gradient = case(torch.float32, SHAPES[1])
    expected = run(layer, x.bfloat16().float(), gradient)
    found = [results['bfloat16'] for results in ranks]
    for part in found:
        assert part['y'].dtype == part['x'].dtype == torch.bfloat16
        assert part['weight'].dtype == torch.float32
        for name in ('mean', 'var'):
            torch.testing.assert_close(part[name], expected[name])
    for name in ('y', 'x'):
        torch.testing.assert_close(
            torch.cat([part[name] for part in found]).float(), expected[name],
            rtol=0.01, atol=0.01)


@pytest.mark.skipif(not COMPILES, reason='needs PyTorch 2.11')
def test_sync_batch_norm_compiles_to_one_graph(ranks):
    for results in ranks:
        for compiled, eager in (('compiled', (torch.float32, SHAPES[1])),
                                ('compiled bfloat16', 'bfloat16')):
            for name, value in results[compiled].items():
                assert torch.equal(value, results[eager][name]), name


def test_sync_batch_norm_uses_running_statistics_in_eval_mode(ranks):
    layer, x, gradient = case(torch.float32, SHAPES[1])
    run(layer, x, gradient)
    for results in ranks:
        torch.testing.assert_close(results['eval']['y'], layer.eval()(x))
        assert results['eval']['n'] == layer.num_batches_tracked == 2
