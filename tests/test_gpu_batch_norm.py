"""Synchronized batch norm on a GPU. Skipped without a GPU.

PyTorch's oracle is the whole batch in one process, in float64. Two processes
share the GPU by gloo, because NCCL refuses two processes on one GPU. NCCL runs
in a group of one process.
"""
import copy
import multiprocessing
import os
import traceback

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from univip_mm.models.batch_norm import prepare_batch_norm
from univip_mm.models.sync_batch_norm import sync_batch_norm

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a GPU')
SHAPES = (8, 16), (8, 16, 7, 5)
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
SECONDS = 200  # until the processes are ended


def case(shape):
    """Return a layer in float64, inputs of all processes and gradients."""
    torch.manual_seed(0)
    layer = nn.SyncBatchNorm(shape[1]).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(shape, dtype=torch.float64) * 2 + 10
    x += torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
    return layer, x, torch.randn(shape, dtype=torch.float64)


def run(layer, x, gradient):
    """Return output, gradients and running statistics of one pass."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(gradient)
    return dict(
        y=y.detach(), x=x.grad, mean=layer.running_mean, var=layer.running_var,
        **{name: p.grad for name, p in layer.named_parameters()})


def two_ranks(rank):
    """Return the results of a part of the batch, by case."""
    part = slice(None, 3) if rank == 0 else slice(3, None)
    results = {}
    for shape in SHAPES:
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            layer, x, gradient = (y.to(DEVICE) for y in case(shape))
            layer.to(torch.float32 if dtype == torch.bfloat16 else dtype)
            prepare_batch_norm(layer)
            x, gradient = (y[part].to(dtype) for y in (x, gradient))
            with torch.autocast(DEVICE, torch.bfloat16,
                                enabled=dtype == torch.bfloat16):
                results[f'{dtype} {shape}'] = run(
                    copy.deepcopy(layer), x, gradient)
            if x.ndim == 4:
                x = x.to(memory_format=torch.channels_last)
                results[f'{dtype} {shape} last'] = run(layer, x, gradient)
    return results


def alone(rank):
    """Return results of one process with NCCL, by kind of execution."""
    layer, x, gradient = (y.float().to(DEVICE) for y in case(SHAPES[1]))
    x.requires_grad_()

    def step(function=sync_batch_norm):
        y = function(x, layer.weight, layer.bias, layer.running_mean,
                     layer.running_var, 0.1, layer.eps, dist.group.WORLD)
        inputs = x, layer.weight, layer.bias
        return y.detach(), *torch.autograd.grad(y, inputs, gradient)

    def result(values):
        names = 'y', 'x', 'weight', 'bias'
        statistics = dict(mean=layer.running_mean, var=layer.running_var)
        found = {**dict(zip(names, values)), **statistics}
        found = {name: y.clone() for name, y in found.items()}
        layer.reset_running_stats()
        return found

    compiled = torch.compile(sync_batch_norm, fullgraph=True)
    results = dict(eager=result(step()), compiled=result(step(compiled)))
    if DEVICE == 'cpu':
        return results
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')  # a host read raises
    values = step()
    torch.cuda.set_sync_debug_mode('default')
    results['no wait'] = result(values)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    layer.reset_running_stats()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values = step()
    layer.reset_running_stats()
    graph.replay()
    torch.cuda.synchronize()
    results['graph'] = result(values)
    return results


def work(function, backend, rank, size, folder):
    """Write the results of a process, or its error, to the folder."""
    path = f'{folder}/rank{rank}.pth'
    try:
        dist.init_process_group(backend, f'file://{folder}/group', rank=rank,
                                world_size=size)
        results = {key: {name: y.cpu() for name, y in values.items()}
                   for key, values in function(rank).items()}
    except Exception:
        results = traceback.format_exc()
    torch.save(results, f'{path}.part')
    os.replace(f'{path}.part', path)
    os._exit(0)  # does not wait for the other process


def spawn(function, backend, size, folder):
    """Return the results of new processes, which end after SECONDS."""
    context = multiprocessing.get_context('spawn')  # CUDA cannot be forked
    processes = [
        context.Process(target=work, args=(function, backend, rank, size,
                                           str(folder)))
        for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
    found = [torch.load(folder / f'rank{rank}.pth') for rank in range(size)]
    for results in found:
        assert isinstance(results, dict), results
    return found


def assert_matches_whole_batch(found, key, shape, tolerance):
    layer, x, gradient = case(shape)
    expected = run(layer, x, gradient)
    for name, value in expected.items():
        values = [results[key][name].double() for results in found]
        if name in ('x', 'y'):
            values = [torch.cat(values)]
        elif name in ('weight', 'bias'):
            values = [sum(values)]
        for other in values:
            torch.testing.assert_close(
                other, value, rtol=tolerance, atol=tolerance,
                msg=lambda text, name=name: f'{key}, {name}: {text}')


def test_sync_batch_norm_of_two_processes_matches_whole_batch(tmp_path):
    found = spawn(two_ranks, 'gloo', 2, tmp_path)
    for shape in SHAPES:
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4),
                                 (torch.bfloat16, 0.1)):
            for layout in ('', ' last') if len(shape) == 4 else ('', ):
                key = f'{dtype} {shape}{layout}'
                assert_matches_whole_batch(found, key, shape, tolerance)
                for name in ('mean', 'var', 'weight'):  # not in bfloat16
                    assert found[0][key][name].dtype == torch.promote_types(
                        dtype, torch.float32)


def test_sync_batch_norm_with_nccl_is_captured_and_compiled(tmp_path):
    found = spawn(alone, 'nccl' if DEVICE == 'cuda' else 'gloo', 1, tmp_path)
    kinds = ['eager', 'compiled', 'no wait', 'graph']
    assert list(found[0]) == (kinds if DEVICE == 'cuda' else kinds[:2])
    for key in found[0]:
        assert_matches_whole_batch(found, key, SHAPES[1], 1e-4)


def test_prepared_batch_norm_is_bit_equal_on_gpu():
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(16).to(DEVICE)
    prepared = copy.deepcopy(plain)
    prepare_batch_norm(prepared)
    x = torch.randn(4, 16, 8, 8, device=DEVICE)
    for values in (x, x.bfloat16(), x.to(memory_format=torch.channels_last)):
        assert torch.equal(plain(values), prepared(values))
    assert torch.equal(plain.running_var, prepared.running_var)
    assert torch.equal(
        prepared.eval()(x), F.batch_norm(
            x, plain.running_mean, plain.running_var, plain.weight,
            plain.bias))
