import pytest
import torch
from mmengine.registry import DefaultScope
from torchvision.models import resnet18

from univip_mm.models import PooledTIMMBackbone
from univip_mm.registry import HOST, MODELS

timm = pytest.importorskip('timm')


@torch.no_grad()
def test_features_equal_torchvision():
    torch.manual_seed(0)
    expected = resnet18().eval()
    ours = PooledTIMMBackbone('resnet18').eval()
    ours.timm_model.load_state_dict({
        name: value for name, value in expected.state_dict().items()
        if not name.startswith('fc.')})
    expected.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    found, = ours(images)
    torch.testing.assert_close(found, expected(images))


@pytest.mark.skipif(HOST != 'mmpretrain', reason='the host of the docs')
@pytest.mark.parametrize('name', ['test_resnet', 'test_vit', 'test_convnext'])
def test_weights_fit_host(name):
    with DefaultScope.overwrite_default_scope('univip_mm'):
        theirs = MODELS.build(dict(type='TIMMBackbone', model_name=name))
    theirs.load_state_dict(PooledTIMMBackbone(name).state_dict())  # strict


def test_sync_bn_keeps_activations(monkeypatch):
    monkeypatch.setattr(
        'univip_mm.models.timm_backbone.is_distributed', lambda: True)
    options = dict(model_name='test_efficientnet')
    plain = PooledTIMMBackbone(**options).eval()
    synced = PooledTIMMBackbone(norm_cfg=dict(type='SyncBN'), **options).eval()
    layers = [x for x in synced.modules()
              if isinstance(x, torch.nn.SyncBatchNorm)]
    assert layers
    synced.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(synced(images), plain(images))


@pytest.mark.parametrize('name', ['hf-hub:someone/network', 'resnet0\n'])
def test_unknown_network_is_refused(name):
    with pytest.raises(ValueError, match='timm has no network') as e:
        PooledTIMMBackbone(name)
    assert '\n' not in str(e.value)
