import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.runner.checkpoint import load_checkpoint
from tiny import CONFIGS, error_of, run_tool

from univip_mm.registry import MODELS
from univip_mm.version import __version__

RESNET18 = dict(type='ResNet', depth=18)


@pytest.fixture(scope='module')
def univip():
    """An untrained UniVIP whose two branches differ."""
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
    backbone.eval()  # the host's returns nothing
    return backbone(image)[-1]


@pytest.mark.parametrize('branch', ['online', 'target'])
def test_backbone_computes_what_its_branch_does(univip, checkpoint, branch):
    out = extract(checkpoint, '--branch', branch)
    backbone = MODELS.build(RESNET18)
    load_checkpoint(backbone, str(out), strict=True)
    branches = dict(online=univip.backbone,
                    target=univip.target_net.module[0])
    torch.testing.assert_close(
        feature(backbone), feature(branches[branch]), rtol=0, atol=0)


def test_online_branch_is_taken_unless_another_is_named(checkpoint):
    content = torch.load(extract(checkpoint), weights_only=True)
    assert content['meta'] == dict(
        source='epoch_3.pth', branch='online', epoch=3, iter=12,
        univip_mm=__version__)


def test_a_config_takes_it_as_pretrained(univip, checkpoint):
    out = extract(checkpoint)
    backbone = MODELS.build(
        dict(RESNET18,
             init_cfg=dict(type='Pretrained', checkpoint=str(out))))
    backbone.init_weights()
    torch.testing.assert_close(
        feature(backbone), feature(univip.backbone), rtol=0, atol=0)


def test_torchvision_takes_all_but_its_classifier(univip, checkpoint, capsys):
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


def test_what_was_done_is_said(checkpoint, capsys):
    out = extract(checkpoint, '--branch', 'target')
    said = capsys.readouterr().out
    assert '120 tensors, 11.2 million numbers' in said
    assert 'target branch' in said and str(out) in said


# What a user gets wrong, and a word of the answer.

def test_a_missing_checkpoint_is_named(tmp_path):
    message = error_of('extract_backbone', tmp_path / 'no.pth',
                       tmp_path / 'out.pth')
    assert f"there is no checkpoint '{tmp_path}/no.pth'" in message


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    path = tmp_path / 'notes.pth'
    path.write_text('not a checkpoint')
    message = error_of('extract_backbone', path, tmp_path / 'out.pth')
    assert f"'{path}' is not a checkpoint" in message
    assert not (tmp_path / 'out.pth').exists()


def test_a_checkpoint_that_is_cut_short_is_named(checkpoint):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:len(content) // 2])
    message = error_of('extract_backbone', checkpoint,
                       checkpoint.parent / 'out.pth')
    assert f"'{checkpoint}' is not a checkpoint, is cut short" in message


@pytest.mark.parametrize('content, word', [
    (dict(state_dict={'head.fc.weight': torch.ones(1)}), "['head']"),
    (dict(state_dict={}), "no 'backbone.*'"),
    (dict(state_dict=[1]), 'not a state dict'),
    ({1: 2}, "no 'backbone.*'"),
])
def test_a_checkpoint_without_a_backbone_is_named(tmp_path, content, word):
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    message = error_of('extract_backbone', path, tmp_path / 'out.pth')
    assert str(path) in message and word in message


def test_a_backbone_is_not_taken_for_a_pre_training(checkpoint):
    out = extract(checkpoint)
    message = error_of('extract_backbone', out, checkpoint.parent / 'x.pth')
    assert str(out) in message and "no 'backbone.*'" in message


def test_torchvision_has_no_narrow_resnet(tmp_path):
    backbone = MODELS.build(dict(RESNET18, base_channels=8, stem_channels=8))
    path = tmp_path / 'narrow.pth'
    torch.save({f'backbone.{name}': value
                for name, value in backbone.state_dict().items()}, path)
    message = error_of('extract_backbone', path, tmp_path / 'out.pth',
                       '--format', 'torchvision')
    assert str(path) in message and 'take --format mm' in message
