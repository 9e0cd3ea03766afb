import os
import re
from datetime import timedelta

import pytest
import torch
from tiny import demo_config

from univip_mm.engine.cpu import check_mixed_precision, prepare_for_cpu
from univip_mm.utils import distributed

SYNC_BN = ['model.backbone.norm_cfg', 'model.neck.norm_cfg',
           'model.head.predictor.norm_cfg']


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """Hide the GPU and record the backends of started process groups."""
    groups = []
    for name in ('open_store', 'check_addresses', 'start_heartbeat'):
        monkeypatch.setattr(distributed, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'init_process_group',
                        lambda backend, **kwargs: groups.append(backend))
    monkeypatch.setattr(os, 'environ',
                        dict(os.environ, RANK='0', WORLD_SIZE='2'))
    return groups


def config(name='univip_r18_coco', launcher='pytorch', **changes):
    return demo_config(f'{name}.py', launcher=launcher, **changes)


def test_prepare_for_cpu_starts_gloo(launched):
    cfg = config()
    prepare_for_cpu(cfg)
    assert launched == ['gloo']
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        device_ids=None)


@pytest.mark.parametrize('changes, seconds, limit', [
    ({}, 300, 60),
    ({'env_cfg.dist_cfg.timeout': 7, 'default_hooks.heartbeat.limit': 5}, 7,
     5),
    (dict(env_cfg=dict(dist_cfg=None), default_hooks=dict(heartbeat=None)),
     300, 60)])
def test_prepare_for_cpu_obeys_timeouts(monkeypatch, changes, seconds, limit):
    calls = []
    monkeypatch.setattr('univip_mm.engine.cpu.start_gloo',
                        lambda *args, **kwargs: calls.append((args, kwargs)))
    prepare_for_cpu(config(**changes))
    assert calls == [(('pytorch', timedelta(seconds=seconds)),
                      dict(limit=limit))]


@pytest.mark.parametrize('timeout', ['300', 0, -1])
def test_prepare_for_cpu_refuses_wrong_timeout(timeout):
    with pytest.raises(ValueError, match='env_cfg.dist_cfg.timeout is '):
        prepare_for_cpu(config(**{'env_cfg.dist_cfg.timeout': timeout}))


def test_prepare_for_cpu_keeps_wrapper_of_config():
    cfg = config(model_wrapper_cfg=dict(
        type='MMDistributedDataParallel', find_unused_parameters=True))
    prepare_for_cpu(cfg)
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert cfg.model_wrapper_cfg.device_ids is None


def test_prepare_for_cpu_keeps_existing_group(launched, monkeypatch):
    monkeypatch.setattr('univip_mm.utils.distributed.is_started', lambda: True)
    prepare_for_cpu(config())
    assert launched == []


def test_prepare_for_cpu_refuses_unknown_launcher():
    with pytest.raises(ValueError, match="no launcher 'mpi'"):
        prepare_for_cpu(config(launcher='mpi'))


def test_prepare_for_cpu_ignores_single_process(launched):
    cfg = config('univip_r50_coco', launcher='none')
    before = cfg.to_dict()
    prepare_for_cpu(cfg)
    assert cfg.to_dict() == before and launched == []


def test_prepare_for_cpu_ignores_gpu_machine(launched, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = config('univip_r50_coco')
    before = cfg.to_dict()
    prepare_for_cpu(cfg)
    assert cfg.to_dict() == before and launched == []


def test_prepare_for_cpu_refuses_sync_bn_with_fix(launched):
    cfg = config('univip_r50_coco')
    with pytest.raises(ValueError, match='SyncBN needs a GPU') as e:
        prepare_for_cpu(cfg)
    cure = dict(re.findall(r'(\S+)=(\S+)', str(e.value)))
    assert cure == dict(
        zip((f'{key}.type' for key in SYNC_BN), ('BN', 'BN1d', 'BN1d')))
    assert launched == []
    cfg.merge_from_dict(cure)
    prepare_for_cpu(cfg)
    assert launched == ['gloo']


def test_check_mixed_precision_needs_gpu(monkeypatch):
    check_mixed_precision(config())
    cfg = config(**{'optim_wrapper.type': 'AmpOptimWrapper'})
    with pytest.raises(ValueError, match='leave out --amp'):
        check_mixed_precision(cfg)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    check_mixed_precision(cfg)
