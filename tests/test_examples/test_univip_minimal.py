"""The example equals the package and trains."""
import copy
import json
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from PIL import Image
from tiny import ROOT, univip_config
from torch import nn
from torchvision.models import resnet18

from univip_mm.registry import MODELS

C, HIDDEN, LOSSES = 16, 16, ('scene', 'scene_instance', 'instance')


@pytest.fixture(scope='module')
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'examples')
        import univip_minimal
        yield univip_minimal
    del sys.modules['univip_minimal']


class PooledBackbone(nn.Module):
    """Backbone of the host followed by average pooling."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x)[-1].mean((2, 3))


def build_pair(example):
    """Return the model of the package and the example's, equal weights."""
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info('max_iters', 10)
    model = MODELS.build(univip_config(example.K, C))
    minimal = example.UniVIP(
        PooledBackbone(copy.deepcopy(model.backbone)), 64, HIDDEN, C)
    for mlp, neck in ((minimal.projector, model.neck),
                      (minimal.predictor, model.head.predictor)):
        for ours, theirs in zip((mlp[0], mlp[1], mlp[3]),
                                (neck.fc0, neck.bn0, neck.fc1)):
            ours.load_state_dict(theirs.state_dict())
    minimal.fusion.load_state_dict(model.fusion_neck.fc.state_dict())
    minimal.update_target(momentum=0.)
    return model, minimal


def test_losses_and_gradients_match_the_package(example):
    model, minimal = build_pair(example)
    views = [torch.randn(4, 3, size, size)
             for size in [32] * 2 + [16] * example.K]
    expected = model.loss(views)
    losses = minimal(*views)
    for loss, name in zip(losses, LOSSES):
        torch.testing.assert_close(
            loss, expected[f'loss_{name}'], rtol=0, atol=1e-5)
    sum(losses).backward()
    model.parse_losses(expected)[0].backward()
    torch.testing.assert_close(minimal.backbone.backbone.conv1.weight.grad,
                               model.backbone.conv1.weight.grad)
    torch.testing.assert_close(minimal.fusion.weight.grad,
                               model.fusion_neck.fc.weight.grad)


def test_transport_loss_matches_the_package(example):
    generator = torch.Generator().manual_seed(0)
    loss = MODELS.build(dict(type='SinkhornOTLoss'))
    o, t = torch.randn(2, 8, example.K, C, generator=generator)
    f_o, f_t = torch.randn(2, 8, C, generator=generator)
    f_t[0] = -o[0].mean(0)
    o[1] = -f_t[1]  # no relevant instance
    torch.testing.assert_close(
        example.transport_loss(o, t, f_o, f_t), loss(o, t, f_o, f_t),
        rtol=0, atol=1e-5)


def test_sample_regions_keeps_instances_in_both_scenes(example):
    image = Image.new('RGB', (400, 300))
    boxes = [[150, 100, 220, 170], [180, 120, 250, 200.5]]
    found = 0
    for _ in range(50):
        a, b, instances = example.sample_regions(image, boxes)
        assert len(instances) == example.K
        found += sum(box in boxes for box in instances)
        for x1, y1, x2, y2 in instances:
            assert max(a[0], b[0]) <= x1 < x2 <= min(a[2], b[2])
            assert max(a[1], b[1]) <= y1 < y2 <= min(a[3], b[3])
    assert found > 50


def test_example_saves_trained_backbone(
        example, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(example, 'SCENE_SIZE', 64)
    monkeypatch.setattr(example, 'INSTANCE_SIZE', 32)
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for i in range(4):
        small = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
        small.resize((200, 160)).save(tmp_path / f'images/{i}.jpg')
    (tmp_path / 'boxes.json').write_text(
        json.dumps({'0.jpg': [[20, 20, 90, 90], [60, 50, 150, 140]]}))
    out = tmp_path / 'backbone.pth'
    torch.manual_seed(0)
    backbone = resnet18()
    before = backbone.conv1.weight.detach().clone()
    torch.manual_seed(0)  # the example starts from the same weights
    example.main([
        str(tmp_path / 'images'), '--boxes', str(tmp_path / 'boxes.json'),
        '--arch', 'resnet18', '--epochs', '1', '--batch-size', '2',
        '--workers', '0', '--out', str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '4 images, 1 with boxes'
    losses = [float(part.split()[-1])
              for part in lines[1].removeprefix('epoch 1: ').split(', ')]
    assert len(losses) == 3 and np.isfinite(losses).all()
    loaded = backbone.load_state_dict(torch.load(out), strict=False)
    assert set(loaded.missing_keys) == {'fc.weight', 'fc.bias'}
    assert not loaded.unexpected_keys
    change = (backbone.conv1.weight - before).abs().max()
    assert 0 < change < 0.1
