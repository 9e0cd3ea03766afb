import hashlib
from importlib.util import find_spec

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.registry import MODELS as HOST_MODELS
from tiny import CONFIGS, error_of, run_tool

from univip_mm.registry import MODELS
from univip_mm.version import __version__

RESNET18 = dict(type='ResNet', depth=18)


@pytest.fixture(scope='module')
def univip():
    """Return an untrained UniVIP with two different branches."""
    cfg = Config.fromfile(CONFIGS / 'univip_r18_coco.py').model
    cfg.neck.hid_channels = cfg.head.predictor.hid_channels = 32
    model = MODELS.build(cfg)
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith('running_mean'):
                value.normal_()
        for value in model.target_net.parameters():
            value.normal_(std=0.01)
    return model.eval()


@pytest.fixture
def checkpoint(univip, tmp_path):
    path = tmp_path / 'epoch_3.pth'
    torch.save(
        dict(state_dict=univip.state_dict(), meta=dict(epoch=3, iter=12)),
        path)
    return path


def extract(checkpoint, *options):
    out = checkpoint.parent / 'new folder' / 'backbone.pth'
    run_tool('extract_backbone', checkpoint, out, *options)
    return out


def feature(backbone):
    image = torch.randn(1, 3, 32, 32, generator=torch.manual_seed(0))
    backbone.eval()  # eval() of the host returns None
    return backbone(image)[-1]


@pytest.mark.parametrize('branch', ['online', 'target'])
def test_extracted_backbone_matches_branch(univip, checkpoint, branch):
    out = extract(checkpoint, '--branch', branch)
    backbone = MODELS.build(RESNET18)
    load_checkpoint(backbone, str(out), strict=True)
    branches = dict(online=univip.backbone,
                    target=univip.target_net.module[0])
    torch.testing.assert_close(
        feature(backbone), feature(branches[branch]), rtol=0, atol=0)


@pytest.mark.parametrize('format', ['mm', 'torchvision'])
def test_extracted_file_records_source(checkpoint, format):
    content = torch.load(
        extract(checkpoint, '--format', format), weights_only=True)
    found = (content['meta'] if format == 'mm' else
             content._metadata['']['source'])
    assert found == dict(
        source='epoch_3.pth',
        sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        branch='online', epoch=3, iter=12, univip_mm=__version__)
    assert [x.name for x in (checkpoint.parent / 'new folder').iterdir()] == [
        'backbone.pth']


def test_extracted_file_works_as_pretrained_init(univip, checkpoint):
    out = extract(checkpoint)
    backbone = MODELS.build(
        dict(RESNET18,
             init_cfg=dict(type='Pretrained', checkpoint=str(out))))
    backbone.init_weights()
    torch.testing.assert_close(
        feature(backbone), feature(univip.backbone), rtol=0, atol=0)


def test_torchvision_loads_all_but_classifier(univip, checkpoint, capsys):
    out = extract(checkpoint, '--format', 'torchvision')
    assert 'torchvision.models.resnet18' in capsys.readouterr().out
    resnet = torchvision.models.resnet18()
    missing, unexpected = resnet.load_state_dict(
        torch.load(out, weights_only=True), strict=False)
    assert sorted(missing) == ['fc.bias', 'fc.weight'] and not unexpected
    resnet.eval().fc = torch.nn.Identity()
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(
        resnet(image), univip.backbone(image)[-1].mean((2, 3)))


def test_extract_backbone_prints_summary(checkpoint, capsys):
    out = extract(checkpoint, '--branch', 'target')
    printed = capsys.readouterr().out
    assert '120 tensors, 11.2 million numbers' in printed
    assert 'target branch' in printed and str(out) in printed


# ResNet-50 of the recipes, loaded into each package.

@pytest.fixture(scope='module')
def resnet50(tmp_path_factory):
    """Return a BYOL of the host with random weights and its checkpoint."""
    byol = Config.fromfile(CONFIGS / 'univip_r50_coco.py').model
    for key in ('fusion_neck', 'instance_loss', 'loss_weights'):
        byol.pop(key)
    byol.type = 'BYOL'
    byol.data_preprocessor = dict(type='SelfSupDataPreprocessor')
    byol.neck.hid_channels = byol.head.predictor.hid_channels = 16
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = HOST_MODELS.build(byol)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.uniform_()
    path = tmp_path_factory.mktemp('byol') / 'epoch_3.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return model, path


def resnet50_of(package):
    if package == 'torchvision':
        return torchvision.models.resnet50()
    with DefaultScope.overwrite_default_scope(package):
        return ROOT_MODELS.build(dict(type='ResNet', depth=50))


@pytest.mark.parametrize('package', [
    pytest.param(name, marks=pytest.mark.skipif(
        find_spec(name) is None, reason=f'{name} is not installed: '
        'make test-downstream has it'))
    for name in ('mmpretrain', 'mmdet', 'mmseg', 'torchvision')])
def test_resnet50_of_byol_fits_package(resnet50, package):
    model, path = resnet50
    out = extract(path, '--format',
                  'torchvision' if package == 'torchvision' else 'mm')
    content = torch.load(out, weights_only=True)
    network = resnet50_of(package)
    if package == 'torchvision':
        missing, unexpected = network.load_state_dict(content, strict=False)
        assert missing == ['fc.weight', 'fc.bias'] and not unexpected
        network.fc = torch.nn.Identity()
    else:
        load_checkpoint(network, str(out), strict=True)
    loaded = network.state_dict()
    expected = model.backbone.state_dict()
    assert loaded.keys() == expected.keys() and len(loaded) == 318
    for name, value in expected.items():
        assert torch.equal(loaded[name], value), name


# Mistakes of the user, and facts of the error message.

def test_extract_backbone_names_missing_checkpoint(tmp_path):
    message = error_of('extract_backbone', tmp_path / 'no.pth',
                       tmp_path / 'out.pth')
    assert f"there is no checkpoint '{tmp_path}/no.pth'" in message


def test_extract_backbone_names_non_checkpoint(tmp_path):
    path = tmp_path / 'notes.pth'
    path.write_text('not a checkpoint')
    message = error_of('extract_backbone', path, tmp_path / 'out.pth')
    assert f"'{path}' is not a checkpoint" in message
    assert not (tmp_path / 'out.pth').exists()


def test_extract_backbone_names_truncated_checkpoint(checkpoint):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:len(content) // 2])
    message = error_of('extract_backbone', checkpoint,
                       checkpoint.parent / 'out.pth')
    assert f"'{checkpoint}' is truncated (the end of the file" in message


@pytest.mark.parametrize('content, word', [
    (dict(state_dict={'head.fc.weight': torch.ones(1)}), "['head']"),
    (dict(state_dict={}), "no 'backbone.*'"),
    (dict(state_dict=[1]), 'not a state dict'),
    ({'1': 2}, "no 'backbone.*'"),
])
def test_extract_backbone_names_missing_backbone(tmp_path, content, word):
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    message = error_of('extract_backbone', path, tmp_path / 'out.pth')
    assert str(path) in message and word in message


def test_extract_backbone_rejects_detector(tmp_path):
    path = tmp_path / 'detector.pth'
    torch.save(dict(state_dict={
        'backbone.conv1.weight': torch.ones(1),
        'roi_head.fc.weight': torch.ones(1)}), path)
    message = error_of('extract_backbone', path, tmp_path / 'out.pth')
    assert str(path) in message and "no 'target_net.module.0.*'" in message
    assert 'UniVIP and BYOL' in message


def test_extract_backbone_converts_extracted_backbone(checkpoint):
    out = extract(checkpoint)
    again = checkpoint.parent / 'x.pth'
    run_tool('extract_backbone', out, again, '--format', 'torchvision')
    content = torch.load(again, weights_only=True)
    assert content._metadata['']['source']['source'] == 'epoch_3.pth'
    message = error_of('extract_backbone', out, out)
    assert f"'{out}' is the checkpoint itself" in message


def test_extract_backbone_rejects_narrow_torchvision(tmp_path):
    backbone = MODELS.build(dict(RESNET18, base_channels=8, stem_channels=8))
    path = tmp_path / 'narrow.pth'
    torch.save({f'{branch}.{name}': value
                for name, value in backbone.state_dict().items()
                for branch in ('backbone', 'target_net.module.0')}, path)
    message = error_of('extract_backbone', path, tmp_path / 'out.pth',
                       '--format', 'torchvision')
    assert str(path) in message and 'use --format mm' in message
