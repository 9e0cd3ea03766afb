import re

import pytest
import torch
from mmpretrain.engine.optimizers import LARS
from tiny import CONFIGS, demo_config

from univip_mm.engine.config_checks import check_config, find_registered
from univip_mm.registry import MODELS

# These tests run without a GPU, where the scaler of CUDA does nothing.
needs_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'),
    reason='PyTorch before 2.3 has no loss scaler for the CPU')

ALL = sorted(path.name for path in CONFIGS.glob('*.py'))


def test_check_config_needs_a_collate_function_for_device_cuts():
    cfg = demo_config(**{f'{CROP}.cut': 'device'})
    check_config(cfg)
    cfg.train_dataloader.collate_fn.type = 'default_collate'
    with pytest.raises(ValueError, match="=dict.type='univip_mm.collate_v"):
        check_config(cfg)


def test_check_config_needs_device_cuts_for_device_decoding():
    cfg = demo_config(**{f'{LOAD}.decode': 'device'})
    with pytest.raises(ValueError, match="set cut='device' too"):
        check_config(cfg)
    cfg.merge_from_dict({f'{CROP}.cut': 'device'})
    check_config(cfg)


@pytest.mark.parametrize('name', ALL)
def test_check_config_accepts_all_configs(name):
    check_config(demo_config(name))


LOAD = 'train_dataloader.dataset.pipeline.0'
CROP = 'train_dataloader.dataset.pipeline.1'


@pytest.mark.parametrize('key, value, message', [
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
    ('param_scheduler.0.end', 0, 'is 0, but the schedule begins at 0'),
    ('param_scheduler.0.end', 'all', "is 'all', but must be a number"),
    ('default_hooks.logger.type', 'LogHook', "did you mean 'LoggerHook'"),
])
def test_check_config_names_key(key, value, message):
    with pytest.raises(ValueError, match=re.escape(message)) as e:
        check_config(demo_config(**{key: value}))
    text = str(e.value)
    assert text.startswith(key.removesuffix('.type')) and '\n' not in text


@pytest.mark.parametrize('key, value', [
    ('optim_wrapper.optimizer.lr', 1),  # int is valid for float
    ('optim_wrapper.clip_grad', dict(type='norm', max_norm=1.)),
    ('optim_wrapper.type', 'AmpOptimWrapper'),
    ('optim_wrapper.loss_scale', 512.),
    ('optim_wrapper.loss_scale', dict(init_scale=512)),
    ('model.type', 'univip_mm.UniVIP'),
    ('model.backbone.type', 'mmpretrain.ResNet'),
    ('model.backbone.type', 'mmpretrain.models.ResNet'),
    ('custom_hooks', [dict(type='EMAHook', priority='LOW')]),
])
def test_check_config_accepts_valid_values(key, value):
    check_config(demo_config(**{
        'optim_wrapper.type': 'AmpOptimWrapper', key: value}))


@pytest.mark.parametrize('name', ['os.system', 'subprocess.getoutput', 'Nil'])
def test_find_registered_imports_nothing(name):
    assert find_registered(MODELS, name) is None


@needs_scaler
def test_lars_with_amp_equals_float32():
    """LARS sees unscaled gradients, so AMP with LARS is valid."""
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
