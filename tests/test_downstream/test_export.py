import json
import pickle
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torchvision
from backbones import random_backbone, write_checkpoint
from tiny import CONFIGS, error_of, run_tool

from univip_mm.downstream import packages
from univip_mm.downstream.export import export, export_backbone
from univip_mm.downstream.export_names import (
    to_detectron2,
    to_timm,
    to_torchvision,
    weight_shapes,
)
from univip_mm.downstream.network import resnet_config
from univip_mm.downstream.source import read_source
from univip_mm.registry import MODELS

RESNET18 = dict(type='ResNet', depth=18, norm_cfg=dict(type='SyncBN'))
VIT = dict(type='VisionTransformer', arch='deit-tiny', img_size=32)
EXACT = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture(scope='module')
def resnet():
    return random_backbone(dict(type='ResNet', depth=18))


@pytest.fixture(scope='module')
def narrow():
    """Return a ResNet-18 of an eighth of the width, and its config."""
    config = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
    return random_backbone(config), config


@pytest.fixture(scope='module')
def vit():
    return random_backbone(VIT)


@pytest.fixture(scope='module')
def checkpoint(resnet, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run') / 'out/checkpoints'
    folder.mkdir(parents=True)
    return write_checkpoint(resnet, folder / 'epoch_3.pth', RESNET18)


def image(size=64):
    return torch.randn(2, 3, size, size, generator=torch.manual_seed(1))


def run_snippet(exported):
    """Run the printed Python and return its variables."""
    names = {}
    exec(exported.snippet, names)
    return names


@torch.no_grad()
def pooled(backbone, images):
    last = backbone(images)[-1]
    return last.mean((2, 3)) if last.ndim == 4 else last


@torch.no_grad()
def output(model, images):
    model.eval()
    return model(images)


# Each format, loaded by the printed Python in its library.

def test_export_mm_loads_in_mmpretrain(checkpoint, resnet):
    model = run_snippet(export_backbone(checkpoint))['model']
    torch.testing.assert_close(
        output(model, image())[-1], output(resnet, image())[-1], **EXACT)


def test_export_torchvision_gives_same_features(checkpoint, resnet):
    exported = export_backbone(checkpoint, format='torchvision')
    model = run_snippet(exported)['model']
    assert type(model) is torchvision.models.ResNet
    torch.testing.assert_close(
        output(model, image()), pooled(resnet, image()), **EXACT)


@pytest.mark.parametrize('depth, width', [(50, 4), (101, 8)])
def test_export_names_resnext(depth, width):
    name = f'resnext{depth}_32x{width}d'
    with torch.device('meta'):
        network = getattr(torchvision.models, name)()
    del network.fc
    weights = network.state_dict()
    config = resnet_config(weights)
    assert config == dict(type='ResNeXt', depth=depth, groups=32,
                          width_per_group=width)
    assert to_torchvision(weights, config).name == name
    if depth == 50:
        if find_spec('timm'):
            assert to_timm(weights, config).name == name
        assert weight_shapes(
            MODELS.build(config).state_dict()) == weight_shapes(weights)


def test_export_timm_gives_same_features_of_resnet(checkpoint, resnet):
    pytest.importorskip('timm')
    exported = export_backbone(checkpoint, format='timm')
    assert exported.name == 'timm resnet18'
    torch.testing.assert_close(
        output(run_snippet(exported)['model'], image()),
        pooled(resnet, image()), **EXACT)


def test_export_timm_gives_same_features_of_vit(tmp_path, vit):
    pytest.importorskip('timm')
    path = write_checkpoint(vit, tmp_path / 'vit.pth', VIT)
    exported = export_backbone(path, format='timm')
    assert exported.name == 'timm vit_tiny_patch16_224'
    torch.testing.assert_close(
        output(run_snippet(exported)['model'], image(32)),
        pooled(vit, image(32)), **EXACT)


def test_export_timm_names_swin():
    # tests/test_engine/test_weight_names.py compares the features.
    pytest.importorskip('timm')
    config = dict(type='SwinTransformer', arch='tiny')
    renamed = to_timm(MODELS.build(config).state_dict(), config)
    assert renamed.name == 'swin_tiny_patch4_window7_224'
    assert renamed.options == {}


def test_export_timm_takes_network_of_timm(tmp_path):
    timm = pytest.importorskip('timm')
    config = dict(type='TIMMBackbone', model_name='vit_tiny_patch16_224',
                  depth=1, img_size=32)
    network = random_backbone(config)
    path = write_checkpoint(network, tmp_path / 'timm.pth', config)
    found = run_snippet(export_backbone(path, format='timm'))['model']
    assert type(found) is timm.models.VisionTransformer
    torch.testing.assert_close(
        output(found, image(32)), output(network, image(32))[-1][:, 0])


def test_export_mm_names_the_class_of_the_host(tmp_path):
    pytest.importorskip('timm')
    config = dict(type='TIMMBackbone', model_name='vit_tiny_patch16_224',
                  depth=1, img_size=32)
    network = random_backbone(config)
    path = write_checkpoint(network, tmp_path / 'timm.pth',
                            dict(config, type='PooledTIMMBackbone'))
    model = run_snippet(export_backbone(path))['model']
    assert torch.equal(output(model, image(32))[-1],
                       output(network, image(32))[-1])


def test_export_safetensors_loads_in_mmpretrain(checkpoint, resnet):
    safetensors = pytest.importorskip('safetensors')
    exported = export_backbone(checkpoint, format='safetensors')
    weights = run_snippet(exported)['weights']
    model = random_backbone(dict(type='ResNet', depth=18))
    model.load_state_dict({
        name: torch.zeros_like(x) for name, x in weights.items()})
    model.load_state_dict(weights, strict=True)
    assert torch.equal(output(model, image())[-1],
                       output(resnet, image())[-1])
    with safetensors.safe_open(exported.path, 'pt') as file:
        metadata = file.metadata()
    assert metadata['source'] == 'epoch_3.pth' and metadata['epoch'] == '3'


@pytest.mark.parametrize('name, sizes', [
    ('ResNet', [(1, 64), (3, 97)]), ('VisionTransformer', [(3, 32)])])
def test_export_onnx_gives_same_features(tmp_path, name, sizes):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    config = dict(type=name, depth=18, base_channels=8, stem_channels=8,
                  num_stages=2, strides=(1, 2), dilations=(1, 1),
                  out_indices=(1, ))
    if name != 'ResNet':
        config = dict(type=name, img_size=32, arch=dict(
            embed_dims=32, num_layers=1, num_heads=2,
            feedforward_channels=64))
    backbone = random_backbone(config)
    path = write_checkpoint(
        backbone, tmp_path / 'a.pth', config,
        data_preprocessor=dict(mean=[1, 2, 3], to_rgb=False))
    exported = export_backbone(path, format='onnx')
    session = run_snippet(exported)['session']
    for number, size in sizes:
        images = image(size)[[0, 1, 0][:number]]
        outputs = session.run(None, {'images': images.numpy()})
        torch.testing.assert_close(
            torch.tensor(outputs[0]), pooled(backbone, images), **EXACT)
    assert len(outputs) == (2 if name == 'ResNet' else 1)
    metadata = {x.key: x.value
                for x in onnx.load(exported.path).metadata_props}
    assert metadata['mean'] == '[1.0, 2.0, 3.0]'
    assert metadata['color_order'] == 'BGR'
    assert json.loads(metadata['origin'])['source'] == 'a.pth'


# detectron2: no wheel exists, so the names are written down here.

def names_of_detectron2(blocks):
    """Return the names of detectron2's ResNet with bottleneck blocks."""
    convs = ['stem.conv1']
    for stage, number in zip(('res2', 'res3', 'res4', 'res5'), blocks):
        for block in range(number):
            convs += [f'{stage}.{block}.conv{i}' for i in (1, 2, 3)]
        convs.append(f'{stage}.0.shortcut')
    return {f'{conv}.{name}' for conv in convs for name in (
        'weight', 'norm.weight', 'norm.bias', 'norm.running_mean',
        'norm.running_var', 'norm.num_batches_tracked')}


def test_to_detectron2_has_names_of_model_zoo():
    with torch.device('meta'):
        resnet = torchvision.models.resnet50()
    del resnet.fc
    # The values identify the weights.
    weights = {name: torch.full(x.shape, i, dtype=x.dtype)
               for i, (name, x) in enumerate(resnet.state_dict().items())}
    renamed = to_detectron2(weights, {})
    assert set(renamed.weights) == names_of_detectron2((3, 4, 6, 3))
    assert renamed.options == dict(DEPTH=50, STRIDE_IN_1X1=False)
    for theirs, ours in [
            ('stem.conv1.weight', 'conv1.weight'),
            ('stem.conv1.norm.running_var', 'bn1.running_var'),
            ('res2.0.shortcut.norm.bias', 'layer1.0.downsample.1.bias'),
            ('res3.0.shortcut.weight', 'layer2.0.downsample.0.weight'),
            ('res4.5.conv2.norm.weight', 'layer3.5.bn2.weight'),
            ('res5.2.conv3.weight', 'layer4.2.conv3.weight')]:
        assert renamed.weights[theirs] is weights[ours], theirs


def test_export_detectron2_has_format_of_moco(checkpoint, resnet):
    path = export(checkpoint, format='detectron2')
    with open(path, 'rb') as file:
        data = file.read()
    assert b'numpy._core' not in data  # which NumPy before 1.26 lacks
    content = pickle.loads(data)
    assert content['matching_heuristics'] is True
    assert content['__author__'] == 'univip_mm'
    found = content['model']['res2.0.conv1.norm.weight']
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, resnet.layer1[0].bn1.weight.detach())


def test_export_detectron2_prints_settings(checkpoint, monkeypatch):
    found = []
    module = types.ModuleType('detectron2.config')
    module.get_cfg = lambda: types.SimpleNamespace(
        merge_from_list=found.extend)
    monkeypatch.setitem(sys.modules, 'detectron2', types.ModuleType('d'))
    monkeypatch.setitem(sys.modules, 'detectron2.config', module)
    exported = export_backbone(checkpoint, format='detectron2')
    run_snippet(exported)
    settings = dict(zip(found[::2], found[1::2]))
    assert settings == {
        'MODEL.WEIGHTS': exported.path, 'MODEL.RESNETS.DEPTH': 18,
        'MODEL.RESNETS.STRIDE_IN_1X1': False,
        'MODEL.RESNETS.RES2_OUT_CHANNELS': 64, 'INPUT.FORMAT': 'RGB',
        'MODEL.PIXEL_MEAN': [123.675, 116.28, 103.53],
        'MODEL.PIXEL_STD': [58.395, 57.12, 57.375]}


# Sources and file names.

@pytest.fixture
def out(narrow, tmp_path):
    """Return the folder of a training of a narrow ResNet."""
    folder = tmp_path / 'run/checkpoints'
    folder.mkdir(parents=True)
    write_checkpoint(narrow[0], folder / 'epoch_3.pth')
    return tmp_path / 'run'


def test_export_takes_folder_of_training(out):
    checkpoint = out / 'checkpoints/epoch_3.pth'
    expected = torch.load(export(checkpoint, out / 'x.pth'))
    for source, name in ((out, 'backbone'), (out / 'checkpoints', 'backbone'),
                         (checkpoint, 'backbone_epoch_3')):
        path = export(source)
        assert path == f'{out / name}.pth'
        assert torch.load(path)['meta'] == expected['meta']
    # The folder of the training still has one checkpoint only.
    assert [x.name for x in checkpoint.parent.iterdir()] == ['epoch_3.pth']


def test_export_takes_branch_and_exported_file(out):
    path = export(out, branch='target')
    assert path == str(out / 'backbone_target.pth')
    weights = torch.load(path)['state_dict']
    assert not any(x.any() for x in weights.values())
    again = export(path, out / 'again.pth', branch='target')
    assert torch.load(again)['meta'] == torch.load(path)['meta']
    with pytest.raises(ValueError, match='has the target branch only'):
        export(path, out / 'again.pth')
    pytest.importorskip('safetensors')
    for source, name in ((path, 'backbone_target'), (
            out / 'checkpoints/epoch_3.pth', 'backbone_epoch_3_target')):
        assert export(source, None, 'safetensors', 'target') == (
            f'{out / name}.safetensors')


def test_export_tool_prints_the_snippet(checkpoint, capsys):
    run_tool('export', checkpoint.parents[1], '--format', 'torchvision')
    printed = capsys.readouterr().out
    path = checkpoint.parents[1] / 'backbone_torchvision.pth'
    assert f'written to {path}' in printed
    assert export_backbone(
        checkpoint, path, 'torchvision').snippet in printed


def test_export_reads_the_given_config(out):
    found = read_source(out, config=CONFIGS / 'univip_r50_coco.py')
    assert found.normalization.mean == (123.675, 116.28, 103.53)
    assert found.backbone['depth'] == 50


# Mistakes of the user.

@pytest.mark.parametrize('format', ['torchvision', 'timm', 'detectron2'])
def test_export_refuses_narrow_resnet(out, format):
    if format == 'timm':
        pytest.importorskip('timm')
    message = error_of('export', out, '--format', format)
    assert 'epoch_3.pth' in message and 'use --format mm' in message


def test_export_refuses_caffe_style(resnet, narrow, tmp_path):
    config = dict(narrow[1], style='caffe')
    path = write_checkpoint(narrow[0], tmp_path / 'a.pth', config)
    with pytest.raises(ValueError, match="style = 'caffe'.*torchvision"):
        export(path, format='torchvision')
    if find_spec('timm'):
        with pytest.raises(ValueError, match="style = 'caffe'.*timm"):
            export(path, format='timm')
    with pytest.raises(ValueError, match="style = 'caffe'"):
        to_torchvision(resnet.state_dict(), dict(
            type='mmpretrain.ResNet', depth=18, style='caffe'))
    settings = to_detectron2(resnet.state_dict(), dict(style='caffe')).options
    assert settings['STRIDE_IN_1X1'] is True


def test_export_refuses_vit_in_torchvision(tmp_path, vit):
    path = write_checkpoint(vit, tmp_path / 'vit.pth', VIT)
    with pytest.raises(ValueError, match='ViT .* use --format timm'):
        export(path, format='torchvision')


def test_export_refuses_vit_with_other_heads(vit):
    pytest.importorskip('timm')
    arch = dict(embed_dims=192, num_layers=12, num_heads=4,
                feedforward_channels=768)
    with pytest.raises(ValueError, match='4 heads of 48 channels'):
        to_timm(vit.state_dict(), dict(
            type='mmpretrain.VisionTransformer', arch=arch, img_size=32))


def test_export_refuses_other_files(tmp_path, out):
    checkpoint = out / 'checkpoints/epoch_3.pth'
    with pytest.raises(ValueError, match='choose one of mm, torchvision'):
        export(checkpoint, format='keras')
    with pytest.raises(FileNotFoundError, match='has no checkpoint'):
        export(tmp_path / 'run/..')
    with pytest.raises(ValueError, match='is the checkpoint itself'):
        export(checkpoint, checkpoint)
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ValueError, match='not a folder'):
        export(checkpoint, tmp_path / 'folder')
    torch.save({'head.fc.weight': torch.ones(1)}, tmp_path / 'moco.pth')
    with pytest.raises(ValueError, match=r"moco.pth.*no 'backbone\.\*'"):
        export(tmp_path / 'moco.pth')


@pytest.mark.parametrize('format, package', [
    ('timm', 'timm'), ('safetensors', 'safetensors'), ('onnx', 'onnx')])
def test_export_names_missing_package(out, monkeypatch, format, package):
    def refuse(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(packages, 'import_module', refuse)
    with pytest.raises(ValueError, match=f"'pip install {package}'"):
        export(out, format=format)
