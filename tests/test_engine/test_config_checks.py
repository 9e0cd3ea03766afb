import re

import pytest
import torch
from mmengine.config import Config
from mmpretrain.engine.optimizers import LARS
from tiny import CONFIGS

from univip_mm.engine.config_checks import (
    check_config,
    check_network,
    find_registered,
)
from univip_mm.registry import MODELS

# Without a GPU; that of CUDA does nothing there.
needs_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'),
    reason='PyTorch before 2.3 scales losses on GPUs alone')

ALL = sorted(path.name for path in CONFIGS.glob('*.py'))


def config(name='univip_r18_demo.py', **changes):
    cfg = Config.fromfile(CONFIGS / name)
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize('name', ALL)
def test_every_config_of_ours_passes(name):
    check_config(config(name))
    check_network(config(name))


CROP = 'train_dataloader.dataset.pipeline.1'


@pytest.mark.parametrize('key, value, said', [
    ('train_dataloader.batch_size', '64', "is '64', a str, but DataLoader"),
    ('train_dataloader.batch_size', 64.0, 'a float'),
    ('train_dataloader.num_workers', None, 'takes int'),
    (f'{CROP}.num_instances', 4.5, 'is 4.5, a float, but OverlapSceneCrop'),
    (f'{CROP}.scene_size', '64', 'takes int'),
    ('model.base_momentum', '0.01', 'UniVIP takes float'),
    ('model.instance_loss.num_iters', 50.5, 'SinkhornOTLoss takes int'),
    ('model.fusion_neck.in_channels', True, 'a bool'),
    ('optim_wrapper.optimizer.lr', '0.1', "is '0.1', a str, but "),
    ('train_cfg.max_epochs', '14', 'EpochBasedTrainLoop takes int'),
    ('train_dataloader.batch_size', 0, 'must be at least 1'),
    ('train_dataloader.num_workers', -1, 'must be at least 0'),
    ('model.base_momentum', 1.5, 'must be between 0 and 1'),
    ('optim_wrapper.optimizer.momentum', -0.9, 'must be between 0 and 1'),
    ('optim_wrapper.optimizer.lr', -0.1, 'must be at least 0'),
    ('optim_wrapper.optimizer.weight_decay', float('nan'), 'is nan'),
    ('model.backbone.norm_cfg.eps', -1e-5, 'must be at least 0'),
    (f'{CROP}.num_instance', 4, "did you mean 'num_instances'"),
    ('model.instance_loss.zeta', 0.1, 'its options are epsilon'),
    ('train_dataloader.batchsize', 4, "did you mean 'batch_size'"),
    ('model.type', 'UniVip', "did you mean 'UniVIP'"),
    ('model.backbone.type', 'Resnet', "did you mean 'ResNet'"),
    ('model.backbone.norm_cfg.type', 'SyncBn', "did you mean 'SyncBN'"),
    (f'{CROP}.type', 'Quark', 'custom_imports has its module'),
    ('optim_wrapper.optimizer.type', 'LARs', "did you mean 'LARS'"),
    ('default_hooks.logger.type', 'LogHook', "did you mean 'LoggerHook'"),
])
def test_what_is_wrong_is_told_with_its_key(key, value, said):
    with pytest.raises(ValueError, match=re.escape(said)) as e:
        check_config(config(**{key: value}))
    text = str(e.value)
    assert text.startswith(key.removesuffix('.type')) and '\n' not in text


@pytest.mark.parametrize('key, value', [
    ('optim_wrapper.optimizer.lr', 1),  # a whole number is a number
    ('optim_wrapper.clip_grad', dict(type='norm', max_norm=1.)),
    ('optim_wrapper.type', 'AmpOptimWrapper'),
    ('optim_wrapper.loss_scale', 512.),
    ('optim_wrapper.loss_scale', dict(init_scale=512)),
    ('model.type', 'univip_mm.UniVIP'),
    ('model.backbone.type', 'mmpretrain.ResNet'),
    ('model.backbone.type', 'mmpretrain.models.ResNet'),
    ('custom_hooks', [dict(type='EMAHook', priority='LOW')]),
])
def test_what_is_right_passes(key, value):
    check_config(config(**{
        'optim_wrapper.type': 'AmpOptimWrapper', key: value}))


@pytest.mark.parametrize('changes, said', [
    ({'train_dataloader.batch_size': 1},
     'model.neck cannot be run .*train_dataloader.batch_size = 1'),
    ({'model.neck.in_channels': 512}, 'model.neck.in_channels'),
    ({'model.head.predictor.in_channels': 128},
     'check model.head.predictor.in_channels'),
    ({'model.fusion_neck.in_channels': 128},
     'check model.fusion_neck.in_channels'),
    ({'model.fusion_neck.out_channels': 128},
     'fusion_neck gives 128 channels and model.head.predictor 256'),
    ({'model.backbone': dict(_delete_=True, type='AlexNet'),
      f'{CROP}.scene_size': 16}, r'model.backbone cannot .*scene_size = 16'),
    ({'model.backbone': dict(_delete_=True, type='VGG', depth=11),
      'model.neck.in_channels': 512, f'{CROP}.instance_size': 16},
     r'model.backbone cannot .*instance_size = 16'),
])
def test_a_network_that_cannot_run_is_told_with_its_keys(changes, said):
    with pytest.raises(ValueError, match=said) as e:
        check_network(config(**changes))
    assert '\n' not in str(e.value)


def test_a_resnet_takes_a_single_pixel():
    check_network(config(**{f'{CROP}.instance_size': 1}))


def test_several_processes_share_the_batch_of_their_sync_bn():
    changes = {'train_dataloader.batch_size': 1}
    check_network(config('univip_r50_coco.py', launcher='pytorch', **changes))
    with pytest.raises(ValueError, match='batch_size = 1'):
        check_network(config('univip_r50_coco.py', **changes))


def test_a_missing_part_is_named():
    cfg = config()
    del cfg.model['neck']
    with pytest.raises(ValueError, match='has no model.neck'):
        check_network(cfg)


@pytest.mark.parametrize('name', ['os.system', 'subprocess.getoutput', 'Nil'])
def test_nothing_is_imported_to_find_a_name(name):
    assert find_registered(MODELS, name) is None


@needs_scaler
def test_lars_adapts_to_unscaled_gradients_under_amp():
    """So LARS with mixed precision is no mistake."""
    weights = []
    for scale in (None, 2.**16):
        layer = torch.nn.Linear(8, 4)
        torch.nn.init.ones_(layer.weight), torch.nn.init.ones_(layer.bias)
        optimizer = LARS(layer.parameters(), lr=1., weight_decay=1e-6)
        loss = layer(torch.arange(8.) / 8).square().sum()
        if scale is None:
            loss.backward()
            optimizer.step()
        else:
            scaler = torch.amp.GradScaler('cpu', init_scale=scale)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights)
