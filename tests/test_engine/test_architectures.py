import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import CONFIGS

from univip_mm.downstream.extract import extract_backbone
from univip_mm.engine.architectures import ARCHITECTURES, architecture_options
from univip_mm.engine.network_check import check_network
from univip_mm.registry import MODELS

SMALL = dict(hid_channels=16, out_channels=16, norm_cfg=dict(type='BN1d'))
# Short and narrow networks with the options of the real ones.
REDUCED = {
    'resnet18': dict(base_channels=8, stem_channels=8, norm_cfg=dict(
        type='BN')),
    'resnext50': dict(base_channels=8, stem_channels=8, groups=2,
                      width_per_group=4, norm_cfg=dict(type='BN')),
    'vit_small': dict(arch=dict(embed_dims=24, num_layers=2, num_heads=2,
                                feedforward_channels=48)),
    'swin_tiny': dict(arch=dict(embed_dims=8, depths=[2, 1, 1, 1],
                                num_heads=[1, 2, 2, 2])),
}
CHANNELS = dict(resnet18=64, resnext50=256, vit_small=24, swin_tiny=64)


def config(name, **sizes):
    cfg = Config.fromfile(CONFIGS / 'univip_r50_coco.py')
    found = architecture_options(name, **sizes)
    cfg.merge_from_dict(found.options)
    return cfg, found


# The networks that are left out differ from others in the depth only.
@pytest.mark.parametrize('name', sorted(
    {*ARCHITECTURES} - {'resnet101', 'resnet152', 'resnext101'}))
def test_architecture_options_fit_the_config(name):
    cfg, found = config(name)
    if name in REDUCED:
        check_network(cfg, batch_size=2)
    is_resnet = name.startswith('resne')
    assert cfg.optim_wrapper.optimizer.type == (
        'SGD' if is_resnet else 'AdamW')
    assert found.warmup_epochs == (4 if is_resnet else 40)
    assert ('BN' in cfg.model.backbone.get('norm_cfg', {}).get(
        'type', '')) == is_resnet


def test_architecture_options_are_copies():
    first = config('swin_tiny')[0]  # removes `_delete_` from the options
    assert config('swin_tiny')[0].to_dict() == first.to_dict()


def run(cfg):
    """Train one batch, and extract both backbones."""
    model = cfg.model
    model.neck.update(SMALL)
    model.head.predictor.update(SMALL, in_channels=16)
    model.fusion_neck.update(in_channels=16, out_channels=16)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('univip_mm'):
        model = MODELS.build(model)
        model.init_weights()
    views = [torch.randn(2, 3, size, size)
             for size in (64, 64, 32, 32, 32, 32)]
    losses = model.loss(views)
    sum(x for key, x in losses.items() if key.startswith('loss')).backward()
    gradients = [x.grad for x in model.backbone.parameters()]
    assert all(x is not None and x.isfinite().all() for x in gradients)
    assert all(x.isfinite() for x in losses.values())
    for branch, network in (
            ('online', model.backbone),
            ('target', model.target_net.module[0])):
        exported = extract_backbone(
            dict(state_dict=model.state_dict()), branch)
        network.load_state_dict(exported)  # strict


@pytest.mark.parametrize('name', REDUCED)
def test_architecture_options_train(name):
    cfg, _ = config(name, scene_size=64, instance_size=32)
    cfg.model.backbone.update(REDUCED[name])
    cfg.model.neck.in_channels = CHANNELS[name]
    run(cfg)


@pytest.mark.parametrize('name', ['test_resnet', 'test_vit', 'test_convnext'])
def test_architecture_options_train_timm(name):
    pytest.importorskip('timm')
    run(config(f'timm/{name}', scene_size=64, instance_size=32)[0])


@pytest.mark.parametrize('name, channels, optimizer', [
    ('resnet18', 512, 'SGD'),
    ('convnext_tiny', 768, 'AdamW'),
    ('vit_tiny_patch16_224', 192, 'AdamW'),  # needs dynamic_img_size
    ('vit_small_patch14_dinov2', 384, 'AdamW'),  # patches that need padding
    ('swin_tiny_patch4_window7_224', 768, 'AdamW'),  # (B, H, W, C)
])
def test_architecture_options_of_timm(name, channels, optimizer):
    pytest.importorskip('timm')
    cfg, _ = config(f'timm/{name}')
    assert cfg.model.neck.in_channels == channels
    assert cfg.optim_wrapper.optimizer.type == optimizer
    assert not cfg.model.neck.with_avg_pool


@pytest.mark.parametrize('name, message', [
    ('resnet-50', "no network 'resnet-50': did you mean resnet50"),
    ('\x1b', r"no network '\\x1b': Choose one of resnet18, .*swin_tiny, or"),
    ('timm/resnet5', 'did you mean timm/resnet'),
    ('vit_tiny_patch16_224', 'did you mean timm/vit_tiny_patch16_224'),
    ('timm/hf-hub:someone/network', 'there is no network'),
    ('timm/cait_xxs24_224', 'cannot be run on views of 224 and 96 pixels'),
])
def test_architecture_options_refuse(name, message):
    pytest.importorskip('timm')
    with pytest.raises(ValueError, match=message) as e:
        architecture_options(name)
    assert '\n' not in str(e.value)


def test_architecture_options_without_timm(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    with pytest.raises(ValueError, match="'pip install timm'"):
        architecture_options('timm/resnet18')
    with pytest.raises(ValueError, match='did you mean resnet18'):
        architecture_options('resnet1')
