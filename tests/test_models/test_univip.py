import copy
import importlib

import numpy as np
import pytest
import torch
from formulas import instance_loss
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from tiny import univip_config

from univip_mm.models import UniVIP
from univip_mm.models.univip import projection_std
from univip_mm.registry import HOST, MODELS

K, C = 3, 8


def build(**changes):
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info('max_iters', 10)
    return MODELS.build(univip_config(K, C, **changes))


def views(batch=4, num_instances=K):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, 3, size, size, generator=generator)
        for size in [32, 32] + [16] * num_instances
    ]


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def branches(model, inputs):
    """Return the features of both branches in float64.

    Each branch has [scene_1 (B, C), scene_2 (B, C), instances (B, K, C)]. The
    instances pass as one batch.
    """
    target = model.target_net.module
    online, averaged = [], []
    instances = inputs[2:2 + K], inputs[-K:]
    with torch.no_grad():
        for views in (*zip(inputs[:2], inputs[:2]), map(torch.cat, instances)):
            view, target_view = views
            z = model.neck(model.backbone(view))
            online.append(model.head.predictor(list(z))[0].double().numpy())
            averaged.append(target(target_view)[0].double().numpy())
    number = len(inputs[0])
    for features in (online, averaged):
        features[2] = np.stack(
            [features[2][i::number] for i in range(number)])
    return online, averaged


@pytest.mark.parametrize('times', [1, 2])
def test_losses_match_the_formulas(times):
    model = build(data_preprocessor=dict(instance_views=times))
    inputs = views(num_instances=times * K)
    model.double()
    inputs = [x.double() for x in inputs]
    losses = copy.deepcopy(model).loss(inputs)  # updates the target
    f_o, f_t = branches(model, inputs)  # equal weights at the start

    scene = si = 0.
    o, t = f_o[2], f_t[2]
    weight = model.fusion_neck.fc.weight.detach().numpy()
    bias = model.fusion_neck.fc.bias.detach().numpy()
    for i in range(4):
        scene -= unit(f_o[0][i]) @ unit(f_t[1][i])
        scene -= unit(f_o[1][i]) @ unit(f_t[0][i])
        fused = weight @ np.concatenate(o[i]) + bias
        si -= unit(fused) @ unit(f_t[0][i]) + unit(fused) @ unit(f_t[1][i])
    ii = instance_loss(o, t, (f_o[0] + f_o[1]) / 2,
                               (f_t[0] + f_t[1]) / 2)
    assert losses['loss_scene'].item() == pytest.approx(scene / 4, abs=1e-5)
    assert losses['loss_scene_instance'].item() == pytest.approx(
        si / 4, abs=1e-5)
    assert losses['loss_instance'].item() == pytest.approx(ii, abs=1e-5)


def test_losses_in_float32_match_float64():
    inputs = views()
    single = build().loss(inputs)
    double = build().double().loss([x.double() for x in inputs])
    for name in ('loss_scene', 'loss_scene_instance', 'loss_instance'):
        assert single[name].item() == pytest.approx(
            double[name].item(), abs=1e-4)


def test_loss_weights_are_factors():
    plain = build().loss(views())
    weighted = build(loss_weights=dict(scene=2., instance=0.)).loss(views())
    torch.testing.assert_close(weighted['loss_scene'],
                               2 * plain['loss_scene'])
    torch.testing.assert_close(weighted['loss_scene_instance'],
                               plain['loss_scene_instance'])
    assert weighted['loss_instance'] == 0


@pytest.mark.parametrize(
    'name', ['loss_scene', 'loss_scene_instance', 'loss_instance'])
def test_each_loss_has_online_gradient(name):
    model = build()
    model.loss(views())[name].backward()
    for part in (model.backbone, model.neck, model.head.predictor):
        norms = [p.grad.norm() for p in part.parameters()
                 if p.grad is not None]
        assert norms and max(norms) > 0
    assert all(p.grad is None for p in model.target_net.parameters())
    fused = any(p.grad is not None and p.grad.any()
                for p in model.fusion_neck.parameters())
    assert fused == (name == 'loss_scene_instance')


def test_target_is_updated_only_by_the_average():
    model = build(base_momentum=0.01)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1)
    expected = None
    for step in range(3):
        online = copy.deepcopy(
            torch.nn.Sequential(model.backbone, model.neck))
        losses = model.loss(views())
        if step == 0:  # the first update copies
            expected = {k: p.detach().clone()
                        for k, p in online.named_parameters()}
        else:
            m = 0.01 * (np.cos(np.pi * step / 10) + 1) / 2
            expected = {k: (1 - m) * expected[k] + m * p.detach()
                        for k, p in online.named_parameters()}
        before = {k: p.detach().clone()
                  for k, p in model.target_net.module.named_parameters()}
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        optimizer.step()
        for k, p in model.target_net.module.named_parameters():
            assert torch.equal(p, before[k])  # not by the optimizer
            torch.testing.assert_close(p, expected[k])
    assert not any(p.requires_grad
                   for p in model.target_net.module.parameters())


def test_loss_returns_terms_and_log_vars():
    samples = [DataSample(metainfo=dict(num_proposed=n)) for n in (3, 2, 0, 1)]
    out = build().loss(views(), samples)
    assert [k for k in out if 'loss' in k] == [
        'loss_scene', 'loss_scene_instance', 'loss_instance'
    ]
    log_vars = {k: v for k, v in out.items() if 'loss' not in k}
    assert set(log_vars) == {'projection_std', 'plan_entropy',
                             'uniform_marginals', 'proposal_share'}
    assert all(not v.requires_grad for v in log_vars.values())
    assert log_vars['proposal_share'].item() == pytest.approx(0.5)


def test_losses_are_finite_under_autocast():
    model = build()
    with torch.autocast('cpu', torch.bfloat16):
        out = model.loss(views())
    assert all(torch.isfinite(v) and v.dtype == torch.float32
               for k, v in out.items() if 'loss' in k)


@pytest.mark.parametrize('num_instances', [0, K - 1, K + 1, 2 * K])
def test_loss_rejects_other_number_of_instances(num_instances):
    with pytest.raises(ValueError, match='num_instances of OverlapSceneCrop'):
        build().loss(views(num_instances=num_instances))


def test_instances_share_their_batch_statistics():
    inputs = views()
    turned = inputs[:2] + [x.roll(1, 0) for x in inputs[2:]]
    # Swap the first two instances of the first image.
    again = [x.clone() for x in inputs]
    again[2][0], again[3][0] = inputs[3][0], inputs[2][0]
    first, other, shuffled = (
        build(loss_weights=dict(scene=0., scene_instance=0.)).double().loss(
            [x.double() for x in x])['loss_instance'].item()
        for x in (inputs, turned, again))
    assert shuffled == pytest.approx(first, abs=1e-9)
    assert other != pytest.approx(first, abs=1e-6)


def test_univip_rejects_unknown_loss_weight():
    with pytest.raises(ValueError, match='scenes'):
        build(loss_weights=dict(scenes=1.))


def test_predict_writes_the_pooled_feature():
    model = build().eval()
    images = torch.randn(2, 3, 32, 32)
    samples = model(images, [DataSample(), DataSample()], mode='predict')
    expected = model.backbone(images)[-1].mean((2, 3))
    torch.testing.assert_close(
        torch.stack([s.feature for s in samples]), expected)


def test_univip_accepts_instance_loss_with_forward_only():

    @MODELS.register_module(force=True)
    class PlainInstanceLoss(torch.nn.Module):

        def forward(self, o, t, scene_o, scene_t):
            return (o - t).square().mean()

    model = build()
    model.instance_loss = MODELS.build(dict(type='PlainInstanceLoss'))
    assert 'plan_entropy' not in model.loss(views())


def test_projection_std_shows_a_collapse():
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(4096, 64, generator=generator)
    assert projection_std(spread).item() == pytest.approx(1, abs=0.02)
    assert projection_std(torch.ones(16, 64)).item() == pytest.approx(
        0, abs=1e-6)


def test_univip_subclasses_host_byol():
    host_byol = importlib.import_module(f'{HOST}.models').BYOL
    assert UniVIP.__bases__ == (host_byol, )
    assert host_byol is MODELS.get('BYOL')


def test_target_stays_after_a_skipped_step():
    model = build(base_momentum=0.5).train()
    model.steps_since_update = 1
    model.loss(views())  # the first update copies

    def moved(*skipped):
        before = [x.clone() for x in model.target_net.parameters()]
        with torch.no_grad():
            model.backbone.conv1.weight.add_(1)
        model.steps_since_update = 1
        for flag in skipped:
            model.skipped_step = flag
        model.loss(views())
        return not all(torch.equal(a, b) for a, b in zip(
            before, model.target_net.parameters()))

    assert not moved(torch.ones(()))
    assert moved()  # the flag is of one step
    assert moved(torch.zeros(()))


def test_batch_norm_counts_the_passes_of_both_branches():
    model = build().train()
    for step in (1, 2):
        model.loss(views())
        counts = [int(x.num_batches_tracked) for x in (
            model.backbone.bn1, model.neck.bn0, model.head.predictor.bn0,
            model.target_net.module[0].bn1, model.target_net.module[1].bn0)]
        # The target starts from the statistics of the online branch.
        assert counts == [3 * step] * 3 + [3 * step + 3] * 2
