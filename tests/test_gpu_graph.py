"""The graph of the losses gives the training of the eager path on a GPU."""
import copy
import os

import pytest
import torch
from mmengine.logging import MessageHub
from tiny import free_port, univip_config

from univip_mm.registry import MODELS

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a GPU')
K, C = 4, 16


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    torch._dynamo.reset()


def build(**changes):
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info('max_iters', 10)
    model = MODELS.build(univip_config(K, C, **changes)).cuda().train()
    model.steps_since_update = 1
    return model


def views(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 3, size, size, generator=generator).cuda()
            for size in [32, 32] + [16] * K]


def train(model, steps=4, accumulate=1, dtype=None, skip=(), module=None):
    """Train; return the losses of each batch, (batches, 3), on the CPU."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, fused=True)
    values = []
    for i in range(steps * accumulate):
        with torch.autocast('cuda', dtype, enabled=dtype is not None):
            out = (module or model)(views(i), None, 'loss')
        (model.parse_losses(out)[0] / accumulate).backward()
        values.append(torch.stack([x.detach() for name, x in out.items()
                                   if 'loss' in name]))
        if (i + 1) % accumulate == 0:
            flag = torch.tensor(float(i in skip), device='cuda')
            optimizer.found_inf = model.skipped_step = flag
            optimizer.step()
            optimizer.zero_grad()
            model.steps_since_update += 1
    return torch.stack(values).cpu()


def weights(model):
    return torch.cat([x.detach().float().flatten().cpu()
                      for x in model.state_dict().values()])


def assert_same_training(graph, eager, tolerance, **options):
    found, expected = train(graph, **options), train(eager, **options)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    gap = (weights(graph) - weights(eager)).norm() / weights(eager).norm()
    assert gap < tolerance


@pytest.mark.parametrize('options', [
    dict(), dict(accumulate=2), dict(skip=(1, 2)),
    # The rounding errors of a tiny network grow with each step.
    dict(dtype=torch.bfloat16, steps=2)],
    ids=['float32', 'accumulated', 'skipped', 'bfloat16'])
def test_cuda_graph_matches_eager(options):
    tolerance = 1e-4 if options.get('dtype') is None else 0.05
    assert_same_training(build(graph='cuda_graph'), build(), tolerance,
                         **options)


def test_skipped_step_moves_neither_branch():
    model = build(graph='cuda_graph')
    train(model, steps=2)
    online, target = (copy.deepcopy(list(x.parameters())) for x in (
        model.backbone, model.target_net))
    train(model, steps=1, skip=(0, ))  # the target moves once: before the step
    for a, b in zip(online, model.backbone.parameters()):
        assert torch.equal(a, b)
    moved = copy.deepcopy(list(model.target_net.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(target, moved))
    model.loss(views(0))  # after the skipped step
    for a, b in zip(moved, model.target_net.parameters()):
        assert torch.equal(a, b)


def test_graph_works_in_ddp_and_after_resume():
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    torch.distributed.init_process_group('nccl', rank=0, world_size=1)
    try:
        graph, eager = build(graph='cuda_graph'), build()
        module = torch.nn.parallel.DistributedDataParallel(graph)
        assert torch.allclose(
            train(graph, module=module), train(eager), atol=1e-4)
        state = copy.deepcopy(graph.state_dict())
        graph.load_state_dict(state)  # the kernels read the same memory
        other = copy.deepcopy(graph)
        assert torch.allclose(train(graph, module=module), train(other),
                              atol=1e-4)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_inductor_matches_eager(dtype):
    tolerance = 1e-3 if dtype is None else 0.05
    options = (dict(accumulate=2, skip=(3, )) if dtype is None else
               dict(steps=2))
    assert_same_training(build(graph='inductor'), build(), tolerance,
                         dtype=dtype, **options)
