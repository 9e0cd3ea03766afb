import re

import pytest
import torch
from tiny import demo_config

from univip_mm.engine.cpu import check_mixed_precision, prepare_for_cpu

SYNC_BN = ['model.backbone.norm_cfg', 'model.neck.norm_cfg',
           'model.head.predictor.norm_cfg']


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


def config(name='univip_r18_coco', launcher='pytorch', **changes):
    return demo_config(f'{name}.py', launcher=launcher, **changes)


def test_prepare_for_cpu_wraps_the_model():
    cfg = config()
    prepare_for_cpu(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        device_ids=None)


def test_prepare_for_cpu_keeps_wrapper_of_config():
    cfg = config(model_wrapper_cfg=dict(
        type='MMDistributedDataParallel', find_unused_parameters=True))
    prepare_for_cpu(cfg)
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert cfg.model_wrapper_cfg.device_ids is None


def test_prepare_for_cpu_ignores_single_process():
    cfg = config('univip_r50_coco', launcher='none')
    before = cfg.to_dict()
    prepare_for_cpu(cfg)
    assert cfg.to_dict() == before


def test_prepare_for_cpu_ignores_gpu_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = config('univip_r50_coco')
    before = cfg.to_dict()
    prepare_for_cpu(cfg)
    assert cfg.to_dict() == before


def test_prepare_for_cpu_refuses_sync_bn_with_fix():
    cfg = config('univip_r50_coco')
    with pytest.raises(ValueError, match='SyncBN needs a GPU') as e:
        prepare_for_cpu(cfg)
    cure = dict(re.findall(r'(\S+)=(\S+)', str(e.value)))
    assert cure == dict(
        zip((f'{key}.type' for key in SYNC_BN), ('BN', 'BN1d', 'BN1d')))
    cfg.merge_from_dict(cure)
    prepare_for_cpu(cfg)


@pytest.mark.parametrize('scope', ['', 'mmengine.'])
def test_check_mixed_precision_needs_gpu(monkeypatch, scope):
    check_mixed_precision(config())
    cfg = config(**{'optim_wrapper.type': f'{scope}AmpOptimWrapper'})
    with pytest.raises(
            ValueError, match='optim_wrapper.type.*leave out --amp, or use'):
        check_mixed_precision(cfg)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    check_mixed_precision(cfg)
