import pickle
from collections import OrderedDict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from payload import Payload
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from univip_mm.engine.initial_weights import (
    read_initial_weights,
    save_initial_weights,
)
from univip_mm.models import PooledTIMMBackbone
from univip_mm.registry import MODELS

VIT = dict(type='VisionTransformer', img_size=64, patch_size=16, arch=dict(
    embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48))


def built(**cfg):
    with DefaultScope.overwrite_default_scope('univip_mm'):
        network = MODELS.build(cfg)
    network.eval()
    return network


def resnet(depth=18, **options):
    return built(type='ResNet', depth=depth, **options)


@pytest.fixture(scope='module')
def theirs():
    torch.manual_seed(0)
    network = models.resnet18().eval()
    for value in network.buffers():
        if value.is_floating_point():  # not the defaults 0 and 1
            value.uniform_(0.5, 2)
    return network


@pytest.fixture(scope='module')
def weights(theirs):
    return theirs.state_dict()


@pytest.fixture
def save(tmp_path):
    def save(content, name='a.pth'):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)
    return save


def prefixed(prefix, weights):
    return OrderedDict((prefix + x, y) for x, y in weights.items())


@torch.no_grad()
def test_torchvision_features_are_equal(theirs, weights, save):
    ours = resnet()
    found = read_initial_weights(save(weights), ours)
    assert found.report.startswith('120/120 tensors loaded from ')
    assert found.report.endswith(
        "a.pth' (torchvision names); not used: fc")
    ours.load_state_dict(found.state_dict)  # strict
    images = torch.randn(2, 3, 64, 64)
    expected = create_feature_extractor(theirs, ['layer4'])(images)['layer4']
    torch.testing.assert_close(ours(images)[-1], expected, atol=1e-5,
                               rtol=1e-5)


@pytest.mark.parametrize('pack', [
    lambda x: dict(state_dict=x, meta=dict(epoch=1)),
    lambda x: dict(model=prefixed('module.', x), optimizer={}, epoch=1),
    lambda x: dict(state_dict=prefixed('module.backbone.', x)),
    # A checkpoint of UniVIP: the online branch is used.
    lambda x: dict(state_dict={
        **prefixed('backbone.', x), 'neck.fc0.weight': torch.ones(1),
        **{f'target_net.module.0.{k}': v + 1 for k, v in x.items()}}),
    lambda x: prefixed('timm_model.', x),
    lambda x: {k: v for k, v in x.items() if 'num_batches' not in k},
])
def test_other_packings_give_the_same(pack, weights, save):
    found = read_initial_weights(save(pack(weights)), resnet())
    assert not found.is_partial and found.total == len(found.state_dict)
    assert found.total >= 100
    assert all(torch.equal(x, weights[name])
               for name, x in found.state_dict.items())


@torch.no_grad()
def test_timm_vit_features_are_equal(save):
    timm = pytest.importorskip('timm').models
    torch.manual_seed(0)
    theirs = timm.VisionTransformer(
        img_size=64, depth=2, embed_dim=24, num_heads=2, mlp_ratio=2).eval()
    ours = built(**VIT)
    found = read_initial_weights(save(theirs.state_dict()), ours)
    assert '30/30 tensors' in found.report
    assert '(timm names); not used: head' in found.report
    ours.load_state_dict(found.state_dict)  # strict
    theirs.reset_classifier(0)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images)[-1], theirs(images), atol=1e-4,
                               rtol=1e-4)


def test_position_embedding_is_resized(save):
    path = save(built(**{**VIT, 'img_size': 96}).state_dict())
    found = read_initial_weights(path, built(**VIT))
    assert not found.is_partial
    assert found.state_dict['pos_embed'].shape == (1, 17, 24)
    structure = read_initial_weights(path, built(**VIT), only_structure=True)
    assert structure.report == found.report
    assert all(x.is_meta for x in structure.state_dict.values())


def test_names_are_those_of_a_timm_backbone(save):
    pytest.importorskip('timm')
    ours = PooledTIMMBackbone('test_vit')
    for path in (save(ours.timm_model.state_dict(), 'timm.pth'),
                 save(ours.state_dict(), 'ours.pth')):
        found = read_initial_weights(path, ours)
        assert not found.is_partial and found.names == 'timm names'
        assert found.state_dict.keys() == ours.state_dict().keys()


def test_safetensors(weights, tmp_path, save, monkeypatch):
    safetensors = pytest.importorskip('safetensors.torch')
    path = str(tmp_path / 'a.safetensors')
    safetensors.save_file(dict(weights), path)
    found = read_initial_weights(path, resnet())
    assert '120/120' in found.report
    with open(path, 'r+b') as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match='is damaged, or no safetensors'):
        read_initial_weights(path, resnet())
    monkeypatch.setitem(__import__('sys').modules, 'safetensors', None)
    with pytest.raises(ValueError, match="'pip install safetensors'"):
        read_initial_weights(path, resnet())


def test_save_initial_weights(weights, save, tmp_path):
    found = read_initial_weights(save(weights), resnet())
    save_initial_weights(found, tmp_path / 'init.pth')
    again = read_initial_weights(str(tmp_path / 'init.pth'), resnet())
    assert again.state_dict.keys() == found.state_dict.keys()
    assert not again.ignored


def test_urls_execute_no_code(weights, tmp_path, monkeypatch):
    folder = tmp_path / 'served'
    folder.mkdir()
    torch.save(weights, folder / 'good.pth')
    (folder / 'bad.pth').write_bytes(
        pickle.dumps(Payload(tmp_path / 'attacked')))
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    # MMEngine's own loaders, as without load_checkpoints_safely().
    monkeypatch.setattr(CheckpointLoader, '_schemes', {})
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'
        found = read_initial_weights(f'{url}/good.pth', resnet())
        assert '120/120' in found.report
        with pytest.raises(ValueError):
            read_initial_weights(f'{url}/bad.pth', resnet())
        server.shutdown()
    assert not (tmp_path / 'attacked').exists()


@pytest.mark.parametrize('url', [
    'modelzoo://resnet50', 's3://a/b.pth', 'file:///a.pth',
    'torchvision://nothing'])
def test_urls_of_other_schemes_are_refused(url):
    with pytest.raises(ValueError, match=url) as e:
        read_initial_weights(url, resnet())
    assert '\n' not in str(e.value)


def renamed(x):
    return {f'stem_{name}': value for name, value in x.items()}


@pytest.mark.parametrize('ours, content, message', [
    # All tensors of the backbone fit, but the file has more blocks.
    (resnet, lambda x: models.resnet34().state_dict(),
     "fits only in part: 120 of 120 tensors .*; 96 missing in the backbone, "
     "for example 'layer1.2.conv1.weight'"),
    (lambda: resnet(50), lambda x: x, 'fits only in part: .*missing in the '
     'file, .* of another shape.* --init-partial'),
    (lambda: resnet(base_channels=32), lambda x: x, 'fits only in part'),
    (resnet, lambda x: {**x, 'conv1.weight': torch.ones(64, 1, 7, 7)},
     "1 of another shape, for example 'conv1.weight'"),
    (resnet, lambda x: built(**VIT).state_dict(),
     r"a.pth' has the weights of a ViT \(MMPretrain names\), but the backbone "
     'is a ResNet'),
    (resnet, renamed, 'no weight in .* fits the backbone: the file has '
     'stem_conv1.weight, stem_bn1.weight, ..., the backbone conv1'),
    (resnet, lambda x: torch.optim.SGD(
        models.resnet18().parameters()).state_dict(),
     'has no weights, only the state of an optimizer'),
    (resnet, lambda x: dict(epoch=1), 'has no weights, only epoch'),
    (resnet, lambda x: {}, 'has no weights, nothing'),
    (resnet, lambda x: [1], 'has no weights, but is a list'),
])
def test_other_files_are_refused(ours, content, message, weights, save):
    path = save(content(weights))
    for only_structure in (False, True):
        with pytest.raises(ValueError, match=message) as e:
            read_initial_weights(path, ours(), only_structure=only_structure)
        assert '\n' not in str(e.value)


def test_partial_files_are_reported(weights, save):
    found = read_initial_weights(save(weights), resnet(34), partial=True)
    assert found.is_partial
    assert found.report.endswith(
        "not used: fc; 80 missing in the file, for example "
        "'layer1.2.conv1.weight'")
