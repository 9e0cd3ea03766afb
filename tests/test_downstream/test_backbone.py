from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from univip_mm.downstream.backbone import (
    check_fit,
    find_backbone,
    pretrained_options,
    pretrained_parts,
    save_backbone_as_model,
)
from univip_mm.downstream.launch import parse_options

RESNET18 = dict(type='ResNet', depth=18)


def weights(**options):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(RESNET18, **options)).state_dict()


@pytest.fixture(scope='module')
def resnet18():
    return weights()


@pytest.fixture
def checkpoint(tmp_path, resnet18):
    """Write the parts of a pre-training checkpoint that are read."""
    path = tmp_path / 'epoch_3.pth'
    content = {f'backbone.{k}': v for k, v in resnet18.items()}
    content.update({f'target_net.module.0.{k}': v + 1
                    for k, v in resnet18.items()})
    torch.save(dict(state_dict=content, meta=dict(epoch=3, iter=9)), path)
    return path


def config(depth=18):
    return Config(dict(
        default_scope='mmpretrain',
        model=dict(type='ImageClassifier', backbone=dict(
            type='ResNet', depth=depth,
            init_cfg=dict(type='Pretrained', checkpoint='')))))


def test_find_backbone_extracts_online_branch(checkpoint, tmp_path,
                                                  resnet18):
    path, found = find_backbone(str(checkpoint), str(tmp_path / 'out'))
    assert path == str(tmp_path / 'out' / 'backbone.pth')
    written = torch.load(path, weights_only=True)
    assert written['meta']['source'] == 'epoch_3.pth'
    for name, value in resnet18.items():
        assert torch.equal(found[name], value)
        assert torch.equal(written['state_dict'][name], value)


def test_find_backbone_extracts_once(checkpoint, tmp_path):
    path, _ = find_backbone(str(checkpoint), str(tmp_path))
    before = (tmp_path / 'backbone.pth').stat()
    find_backbone(str(checkpoint), str(tmp_path))
    after = (tmp_path / 'backbone.pth').stat()
    assert (after.st_ino, after.st_mtime_ns) == (
        before.st_ino, before.st_mtime_ns)


def test_find_backbone_replaces_other_checkpoint(checkpoint, tmp_path):
    find_backbone(str(checkpoint), str(tmp_path))
    other = checkpoint.rename(tmp_path / 'epoch_9.pth')
    path, _ = find_backbone(str(other), str(tmp_path))
    assert torch.load(path, weights_only=True)['meta']['source'] == (
        'epoch_9.pth')


@pytest.mark.parametrize('bare', [False, True])
def test_find_backbone_accepts_extracted_backbone(tmp_path, resnet18, bare):
    path = tmp_path / 'backbone18.pth'
    torch.save(resnet18 if bare else dict(state_dict=resnet18), path)
    found, content = find_backbone(str(path), str(tmp_path / 'out'))
    assert found == str(path) and list(content) == list(resnet18)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('prefix, word', [
    ('backbone.', 'the averaged backbone'), ('head.', "['head']")])
def test_find_backbone_rejects_other_checkpoints(
        tmp_path, resnet18, prefix, word):
    path = tmp_path / 'detector.pth'
    torch.save({f'{prefix}{k}': v for k, v in resnet18.items()}, path)
    with pytest.raises(ValueError) as e:
        find_backbone(str(path), str(tmp_path))
    message = str(e.value)
    assert str(path) in message and word in message and '\n' not in message


def test_check_fit_accepts_same_network(resnet18):
    check_fit(config(), resnet18)


def test_check_fit_ignores_torchvision_classifier(resnet18):
    check_fit(config(), OrderedDict(
        resnet18, **{'fc.weight': torch.ones(2, 2), 'fc.bias': torch.ones(2)}))


def test_check_fit_rejects_other_depth(resnet18):
    with pytest.raises(ValueError, match='is a ResNet-18, the config a '
                       'ResNet-50') as e:
        check_fit(config(depth=50), resnet18)
    assert 'model.backbone.depth=18' in str(e.value)


@pytest.mark.parametrize('change', [
    lambda x: x.pop('bn1.weight'),
    lambda x: x.update({'layer5.0.conv1.weight': torch.ones(1)}),
    lambda x: x.update({'conv1.weight': torch.ones(64, 1, 7, 7)}),
])
def test_check_fit_rejects_any_difference(resnet18, change):
    changed = OrderedDict(resnet18)
    change(changed)
    with pytest.raises(ValueError, match='^1 of 12[01] weights do not fit'):
        check_fit(config(), changed)


def test_check_fit_rejects_other_stem(resnet18):
    with pytest.raises(ValueError, match="config's backbone is ResNetV1c"):
        check_fit(Config(dict(
            default_scope='mmpretrain', model=dict(backbone=dict(
                type='ResNetV1c', depth=18)))), resnet18)


def test_pretrained_options_name_all_parts():
    cfg = Config(dict(model=dict(
        pretrained='torchvision://resnet50',
        backbone=dict(type='ResNet', init_cfg=dict(type='Pretrained',
                                                   checkpoint='')),
        roi_head=dict(shared_head=dict(init_cfg=dict(
            type='Pretrained', checkpoint=''))))))
    assert pretrained_parts(cfg) == ['model.backbone',
                                     'model.roi_head.shared_head']
    cfg.merge_from_dict(parse_options(pretrained_options(cfg, 'a/b.pth')))
    assert cfg.model.pretrained is None
    for part in (cfg.model.backbone, cfg.model.roi_head.shared_head):
        assert part.init_cfg == dict(type='Pretrained', checkpoint='a/b.pth')


@pytest.mark.parametrize('path', ['a b.pth', 'a,b.pth', '[a].pth'])
def test_pretrained_options_reject_special_characters(path):
    cfg = Config(dict(model=dict(backbone=dict(type='ResNet'))))
    with pytest.raises(ValueError, match='choose another --work-dir'):
        pretrained_options(cfg, path)


def test_pretrained_options_add_init_cfg():
    cfg = Config(dict(model=dict(backbone=dict(type='ResNet'))))
    cfg.merge_from_dict(parse_options(pretrained_options(cfg, 'a.pth')))
    assert cfg.model.backbone.init_cfg.checkpoint == 'a.pth'


def test_pretrained_parts_need_backbone():
    with pytest.raises(ValueError, match='has no backbone'):
        pretrained_parts(Config(dict(model=dict(type='VAE'))))


def test_save_backbone_as_model_adds_prefix(tmp_path, resnet18):
    path = save_backbone_as_model(
        resnet18, str(tmp_path / 'new' / 'whole.pth'))
    content = torch.load(path, weights_only=True)['state_dict']
    assert list(content) == [f'backbone.{name}' for name in resnet18]
