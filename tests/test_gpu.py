"""The GPU gives the same results as the CPU. Skipped without a GPU."""
import copy
import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import EpochBasedTrainLoop
from mmengine.structures import BaseDataElement
from tiny import run_tool, univip_config, watched, write_config

from univip_mm.engine.fused_optimizer import use_fused
from univip_mm.models import (
    SinkhornOTLoss,
    sinkhorn,
    sinkhorn_solver,
    view_cutter,
)
from univip_mm.models.jpeg_decoder import JpegDecoder
from univip_mm.registry import MODELS

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a GPU')
B, K, C = 8, 4, 16


@pytest.fixture(autouse=True)
def float32_without_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def photographs():
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.nn.functional.interpolate(
            torch.rand(B, 3, 7, 7, generator=generator), size,
            mode='bicubic').mul(255).clamp(0, 255).byte()
        for size in [64] * 2 + [32] * K]
    samples = [BaseDataElement(metainfo=dict(view_seed=s)) for s in range(B)]
    return dict(inputs=views, data_samples=samples)


def augmented(device, **options):
    preprocessor = MODELS.build(
        dict(type='UniVIPDataPreprocessor', **options)).to(device)
    return preprocessor(photographs(), training=True)['inputs']


@pytest.mark.parametrize('channels_last', [False, True])
def test_data_preprocessor_matches_cpu(channels_last):
    on_cpu, on_gpu = (augmented(device, channels_last=channels_last)
                      for device in ('cpu', 'cuda'))
    for expected, found in zip(on_cpu, on_gpu):
        assert found.is_cuda
        gaps = (found.cpu() - expected).abs()
        # Rounding can move a value across the threshold of solarization.
        assert (gaps > 1e-3).float().mean() < 1e-3


def jpegs_and_boxes():
    """Return a batch of JPEG files of smooth images with soft colors."""
    files, table = [], torch.zeros(B, 3, 8, dtype=torch.int64)
    for i in range(B):
        small = np.random.default_rng(i).integers(
            80, 176, (6, 8, 3), np.uint8)
        image = cv2.resize(small, (120 + i, 100))
        files.append(cv2.imencode('.jpg', image)[1].ravel())
        table[i, :, 4:] = torch.tensor(
            [[0, 0, 120, 100], [5, 9, 70, 80], [30, 40, 47, 60]])
    return dict(pixels=torch.empty(0, dtype=torch.uint8), table=table,
                sizes=[64, 64, 32], lengths=list(map(len, files)),
                files=torch.from_numpy(np.concatenate(files)))


@pytest.mark.parametrize('kernel', [True, False])
def test_views_cut_on_gpu_match_cpu(kernel, monkeypatch):
    monkeypatch.setattr(view_cutter, '_kernel_failed', not kernel)
    decoded = JpegDecoder().add_images(jpegs_and_boxes(), torch.device('cpu'))
    expected = view_cutter.cut_batch(**decoded)
    found = view_cutter.cut_batch(
        decoded['pixels'].cuda(), decoded['table'].cuda(), decoded['sizes'])
    assert view_cutter._kernel_failed is not kernel
    gaps = torch.cat([(a.cpu().int() - b.int()).abs().flatten()
                      for a, b in zip(found, expected)])
    assert gaps.max() <= 1 and (gaps > 0).float().mean() < 1e-3


def test_jpegs_decoded_on_gpu_match_cpu():
    preprocessor = MODELS.build(dict(
        type='UniVIPDataPreprocessor', mean=[0] * 3, std=[1] * 3))
    expected = preprocessor(dict(inputs=jpegs_and_boxes()))['inputs']
    found = preprocessor.cuda()(dict(inputs=jpegs_and_boxes()))['inputs']
    assert preprocessor.jpeg_decoder.num_fallbacks == 0
    for a, b in zip(found, expected):
        assert a.is_cuda and (a.cpu() - b).abs().mean() < 2


def test_sinkhorn_ot_loss_matches_float64_on_cpu():
    torch.manual_seed(0)
    features = [torch.randn(*shape, dtype=torch.float64)
                for shape in ((B, K, C), (B, K, C), (B, C), (B, C))]
    for epsilon in (0.1, 0.02):  # scaling form, log form
        loss = SinkhornOTLoss(epsilon)
        expected = loss(*features)
        found, log_vars = loss.loss_and_log_vars(
            *(x.float().cuda() for x in features))
        assert found.item() == pytest.approx(expected.item(), abs=1e-5)
        assert log_vars['plan_entropy'].is_cuda


def transport_problem(k):
    """Return random costs and masses; the first image has masses of 0."""
    generator = torch.Generator().manual_seed(k)
    cost = 2 * torch.rand(B, k, k, generator=generator)
    masses = torch.rand(2, B, k, generator=generator)
    masses[:, 0, 1::2] = 0
    masses /= masses.sum(2, keepdim=True)
    return [x.cuda() for x in (cost, *masses)]


@pytest.mark.parametrize('k', [1, 3, 4, 8, 17, 64, 65])
def test_sinkhorn_kernel_matches_float64(k, monkeypatch):
    monkeypatch.setattr(sinkhorn_solver, '_kernel_failed', False)
    problem = transport_problem(k)
    expected = sinkhorn(*(x.double() for x in problem), largest_cost=2.0)
    with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        found = sinkhorn(*problem, largest_cost=2.0)
        torch.cuda.synchronize()
    ran = any('_scaling_kernel' in x.name for x in profile.events())
    assert ran == (k <= 64) and not sinkhorn_solver._kernel_failed
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert (found[0, 1::2] == 0).all() and (found[0, :, 1::2] == 0).all()


@pytest.mark.parametrize('k', [1, 4, 17])
def test_sinkhorn_in_cuda_graph_equals_eager(k):
    problem = transport_problem(k)
    expected = sinkhorn(*problem, largest_cost=2.0)  # builds the kernel
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan = sinkhorn(*problem, largest_cost=2.0)
    for x in problem:
        x.copy_(x.flip(0))
    graph.replay()
    assert torch.equal(plan, expected.flip(0))


def test_sinkhorn_on_gpu_has_a_gradient():
    cost, supply, demand = transport_problem(4)
    cost.requires_grad_()
    sinkhorn(cost, supply, demand, largest_cost=2.0)[0, 0, 0].backward()
    assert cost.grad[0].isfinite().all() and cost.grad[0].any()


def test_sinkhorn_ot_loss_compiled_matches_eager():
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, device='cuda')
              for shape in ((B, K, C), (B, K, C), (B, C), (B, C))]
    loss = SinkhornOTLoss().loss_and_log_vars
    results = []
    for call in (loss, torch.compile(loss, fullgraph=True)):
        o = inputs[0].clone().requires_grad_()
        value, log_vars = call(o, *inputs[1:])
        value.backward()
        results.append([value, o.grad, *log_vars.values()])
    for expected, found in zip(*results):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_losses_and_gradients_match_cpu():
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info('max_iters', 10)
    model = MODELS.build(univip_config(K, C))
    views = augmented('cpu')
    other = copy.deepcopy(model).cuda()
    expected = model(views, None, 'loss')
    found = other([x.cuda() for x in views], None, 'loss')
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), abs=1e-3)
    for one, losses in ((model, expected), (other, found)):
        one.parse_losses(losses)[0].backward()
    gradients = [torch.cat([p.grad.flatten().cpu() for p in one.parameters()
                            if p.grad is not None])
                 for one in (model, other)]
    gap = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert gap < 1e-2


def test_foreach_ema_matches_mmpretrain_on_gpu():
    MessageHub.get_current_instance().update_info('max_iters', 10)
    online = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).cuda()
    ours, theirs = (
        MODELS.get(name)(online, momentum=0.1).cuda()
        for name in ('ForeachCosineEMA', 'CosineEMA'))
    for _ in range(3):
        for parameter in online.parameters():
            parameter.data += 1
        ours.update_parameters(online)
        theirs.update_parameters(online)
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('dtype, scale', [
    ('float32', ''), ('bfloat16', '.enabled=False'), ('bfloat16', '=1.'),
    ('float16', '=dynamic')])
def test_training_is_finite(dtype, scale, coco_folder):
    options = [] if dtype == 'float32' else [
        'optim_wrapper.type=AmpOptimWrapper',
        f'optim_wrapper.dtype={dtype}',
        f'optim_wrapper.loss_scale{scale}',
        'model.data_preprocessor.channels_last=True']
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'run', '--cfg-options',
             'train_dataloader.num_workers=1', *options)
    lines = watched(coco_folder / 'run')
    assert len(lines) == 8
    assert all(math.isfinite(x['loss']) for x in lines)
    assert all(math.isfinite(x['parameters']) for x in lines)


def test_fused_adam_uses_older_state_on_gpu():
    weight = torch.ones(4, device='cuda', requires_grad=True)
    weight.grad = torch.ones_like(weight)
    old, new = (torch.optim.Adam([weight]) for _ in range(2))
    old.step()
    new.load_state_dict(old.state_dict())  # its counter is on the CPU
    use_fused(new)
    new.step()
    assert new.state[weight]['step'].is_cuda
    assert new.state[weight]['step'] == 2


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_iteration_does_not_wait_for_gpu(action, coco_folder, monkeypatch):
    """The first iteration and logged ones may wait."""
    run_iter = EpochBasedTrainLoop.run_iter

    def watched_iter(loop, idx, data_batch):
        is_free = loop.iter == 0 or idx == len(loop.dataloader) - 1
        torch.cuda.set_sync_debug_mode('default' if is_free else 'error')
        try:
            run_iter(loop, idx, data_batch)
        finally:
            torch.cuda.set_sync_debug_mode('default')

    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', watched_iter)
    base = write_config(coco_folder)
    config = coco_folder / 'without_watch.py'
    config.write_text(f"_base_ = './{base.name}'\ncustom_hooks = []\n")
    run_tool('train', config, '--work-dir', coco_folder / 'run',
             '--cfg-options', 'train_dataloader.num_workers=1',
             'default_hooks.logger.interval=50',
             f'default_hooks.non_finite.action={action}')
