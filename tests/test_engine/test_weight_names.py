import pytest
import torch
from mmengine.registry import DefaultScope
from torchvision import models

from univip_mm.engine.weight_names import from_timm, names_of, to_timm
from univip_mm.registry import MODELS

VIT = dict(patch_size=16, img_size=64)
SWIN = dict(embed_dims=12, depths=[2, 1, 1, 1], num_heads=[1, 2, 3, 4])


def built(**cfg):
    with DefaultScope.overwrite_default_scope('univip_mm'):
        return MODELS.build(cfg)


def mm_vit(width=24, mlp=48, **options):
    return built(type='VisionTransformer', **VIT, **options, arch=dict(
        embed_dims=width, num_layers=2, num_heads=2,
        feedforward_channels=mlp))


def mm_swin():
    return built(type='SwinTransformer', arch=SWIN, img_size=224,
                 drop_path_rate=0.)


@pytest.fixture(scope='module')
def timm():
    return pytest.importorskip('timm').models


def timm_vit(timm, **options):
    return timm.VisionTransformer(
        depth=2, embed_dim=24, num_heads=2, mlp_ratio=2, num_classes=0,
        **VIT, **options)


def timm_swin(timm):
    return timm.SwinTransformer(
        embed_dim=12, depths=SWIN['depths'], num_heads=SWIN['num_heads'],
        img_size=224, num_classes=0, drop_path_rate=0.)


def randomize(model):
    """Give all weights values that no other position shares."""
    torch.manual_seed(1)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.normal_(std=0.3)
    model.eval()  # MMPretrain's returns None
    return model


@torch.no_grad()
def check_equal(theirs, ours, size=64):
    """Compare the features after a conversion from their weights to ours."""
    randomize(theirs)
    result = ours.load_state_dict(from_timm({
        name: value for name, value in theirs.state_dict().items()
        if not name.startswith('head')}), strict=False)
    assert not result.unexpected_keys
    assert all(x.endswith('relative_position_index')
               for x in result.missing_keys)
    ours.eval()
    images = torch.randn(2, 3, size, size)
    expected, found = theirs(images), ours(images)[-1]
    if found.ndim == 4:
        found = found.mean((2, 3))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('theirs, ours', [
    ({}, {}),
    (dict(pre_norm=True), dict(pre_norm=True)),
    (dict(init_values=0.1), dict(layer_scale_init_value=0.1)),
    (dict(global_pool='avg'), dict(out_type='avg_featmap', final_norm=False)),
])
def test_from_timm_keeps_vit_features(timm, theirs, ours):
    check_equal(timm_vit(timm, **theirs), mm_vit(**ours))


def test_from_timm_keeps_swin_features(timm):
    check_equal(timm_swin(timm), mm_swin(), size=224)


def test_from_timm_keeps_torchvision_features():
    vit = models.VisionTransformer(64, 16, 2, 2, 24, 48)
    vit.heads = torch.nn.Identity()
    check_equal(vit, mm_vit())
    swin = models.SwinTransformer(
        [4, 4], 12, SWIN['depths'], SWIN['num_heads'], [7, 7],
        stochastic_depth_prob=0.)
    swin.head = torch.nn.Identity()
    check_equal(swin, mm_swin(), size=224)


def test_from_timm_reads_older_swin(timm):
    new = randomize(timm_swin(timm)).state_dict()
    old = {}
    for name, value in new.items():
        stage = name.split('.')[1]
        if '.downsample.' in name:
            name = name.replace(stage, str(int(stage) - 1), 1)
        old[name] = value
    expected, found = from_timm(new), from_timm(old)
    assert expected.keys() == found.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize('network', [mm_vit, mm_swin])
def test_to_timm_is_inverse(timm, network):
    weights = randomize(network()).state_dict()
    converted = to_timm(weights)
    theirs = (timm_vit if network is mm_vit else timm_swin)(timm)
    theirs.load_state_dict(converted)  # strict
    back = from_timm(converted)
    assert back.keys() == {
        x for x in weights if not x.endswith('relative_position_index')}
    assert all(torch.equal(back[name], weights[name]) for name in back)


def test_names_of_networks(timm):
    assert names_of(mm_vit().state_dict()) == ('MMPretrain', 'ViT')
    assert names_of(timm_swin(timm).state_dict()) == ('timm', 'Swin')
    with torch.device('meta'):
        resnet = models.resnet18().state_dict()
        vit = models.vit_b_16().state_dict()
        assert names_of(models.alexnet().state_dict()) == ('', '')
    assert names_of(resnet) == ('torchvision', 'ResNet')
    assert names_of(vit) == ('torchvision', 'ViT')
    assert from_timm(resnet) == to_timm(resnet) == resnet
