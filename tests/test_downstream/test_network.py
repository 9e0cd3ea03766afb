import os

import pytest
import torch
from backbones import random_backbone, write_checkpoint

from univip_mm.downstream.network import build_network
from univip_mm.downstream.source import read_source
from univip_mm.registry import MODELS

RESNET = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)


@pytest.fixture(scope='module')
def resnet():
    return random_backbone(RESNET)


@pytest.mark.parametrize('name, options', [
    ('vit_tiny_patch16_224', dict(depth=1, img_size=32)),
    ('swin_tiny_patch4_window7_224',
     dict(depths=(1, 1), embed_dim=24, num_heads=(2, 2), img_size=56)),
    ('resnet18', {})])
def test_network_pools_like_timm(tmp_path, capsys, name, options):
    timm = pytest.importorskip('timm')
    config = dict(type='TIMMBackbone', model_name=name, **options)
    backbone = random_backbone(config)
    path = write_checkpoint(backbone, tmp_path / 'a.pth', config)
    capsys.readouterr()
    network = build_network(read_source(path))
    assert capsys.readouterr() == ('', '')
    model = timm.create_model(name, num_classes=0, **options)
    model.load_state_dict(backbone.timm_model.state_dict())
    size = options.get('img_size', 64)
    images = torch.randn(2, 3, size, size, generator=torch.manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images)[0], model.eval()(images))


@pytest.mark.parametrize('options', [
    dict(type='os.system', command='touch attacked'),
    dict(type='torch.hub.load', repo_or_dir='a/b'),
    dict(RESNET, norm_cfg=dict(type='os.system', command='touch attacked')),
    dict(type='TIMMBackbone', model_name='hf-hub:attacker/network'),
    dict(type='TIMMBackbone', model_name='resnet18', norm_layer='os.system'),
    dict(type='ImageClassifier', backbone=RESNET),
    dict(type='ResNet', depth=18, plugins=[dict(cfg=dict(
        type='TIMMBackbone', model_name='hf-hub:attacker/network'))]),
    dict(type='AutoAttack', trust_remote_code=True, command='touch attacked'),
    dict(RESNET, norm_cfg=dict(type='AutoAttack', command='touch attacked')),
])
def test_network_refuses_config_of_attacker(tmp_path, monkeypatch, resnet,
                                            options):
    monkeypatch.chdir(tmp_path)
    # MMPretrain registers functions of transformers, if it is installed.
    monkeypatch.setitem(MODELS.parent.module_dict, 'AutoAttack',
                        lambda command, **_: os.system(command))
    path = write_checkpoint(resnet, tmp_path / 'a.pth', options)
    with pytest.raises(ValueError, match='is no known|would be downloaded'):
        build_network(read_source(path))
    assert [x.name for x in tmp_path.iterdir()] == ['a.pth']


def test_network_ignores_initial_weights(tmp_path, monkeypatch):
    timm = pytest.importorskip('timm')
    config = dict(type='TIMMBackbone', model_name='mobilenetv3_small_050')
    path = write_checkpoint(
        random_backbone(config), tmp_path / 'a.pth',
        dict(config, pretrained=True, checkpoint_path='missing.pth',
             init_cfg=dict(type='Pretrained', checkpoint='missing.pth')))
    create = timm.create_model

    def without_download(*args, **kwargs):
        assert not kwargs.get('pretrained')
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, 'create_model', without_download)
    build_network(read_source(path))


def test_network_ignores_nested_loading(tmp_path, resnet):
    path = write_checkpoint(
        resnet, tmp_path / 'a.pth', dict(RESNET, norm_cfg=dict(
            type='SyncBN', init_cfg=3, pretrained=True, checkpoint_path='x')))
    build_network(read_source(path))


def test_network_reports_other_weights(tmp_path, resnet):
    path = write_checkpoint(resnet, tmp_path / 'a.pth',
                            dict(RESNET, base_channels=16))
    with pytest.raises(ValueError, match='do not fit the network'):
        build_network(read_source(path))


def test_source_ignores_a_crafted_config(tmp_path, resnet):
    path = write_checkpoint(resnet, tmp_path / 'a.pth', RESNET)
    content = torch.load(path)
    content['meta']['cfg'] = 'model = {[]: 1}'
    torch.save(content, path)
    found = read_source(path)
    assert found.model == {}
    build_network(found)  # a ResNet is known by its weights
