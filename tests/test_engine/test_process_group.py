import copy
import os
from datetime import timedelta

import pytest
import torch
from tiny import demo_config

from univip_mm.engine import process_group
from univip_mm.engine.process_group import start_group
from univip_mm.utils.processes import is_first_of_node


@pytest.fixture
def calls(monkeypatch):
    """Record the calls that would start a group."""
    calls = []
    for name in ('start_gloo', 'init_dist', 'set_multi_processing',
                 'start_heartbeat'):
        monkeypatch.setattr(
            process_group, name,
            lambda *args, _name=name, **kwargs: calls.append(
                (_name, args, kwargs)))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setattr(process_group, 'check_launcher', lambda launcher: None)
    return calls


def test_start_group_ignores_launcher_none(calls):
    start_group('none', demo_config())
    assert calls == []


def test_start_group_keeps_an_existing_group(calls, monkeypatch):
    monkeypatch.setattr(process_group, 'is_started', lambda: True)
    start_group('pytorch', demo_config())
    assert calls == []


@pytest.mark.parametrize('changes, seconds, limit', [
    ({}, 600, 60),
    ({'env_cfg.dist_cfg.timeout': 0.5, 'default_hooks.heartbeat.limit': 5},
     0.5, 5),
    (dict(env_cfg=dict(dist_cfg=None), default_hooks=dict(heartbeat=None)),
     600, 60)])
def test_start_group_obeys_timeouts_with_gloo(calls, changes, seconds, limit):
    start_group('slurm', demo_config(**changes))
    assert calls == [('start_gloo', ('slurm', timedelta(seconds=seconds)),
                      dict(limit=limit))]


@pytest.mark.parametrize('timeout', ['300', 0, -1, float('inf')])
def test_start_group_refuses_wrong_timeout(calls, timeout):
    with pytest.raises(ValueError, match='env_cfg.dist_cfg.timeout is '):
        start_group('pytorch', demo_config(
            **{'env_cfg.dist_cfg.timeout': timeout}))
    assert calls == []


def test_start_group_works_without_a_config(calls):
    start_group('pytorch')
    assert calls == [('start_gloo', ('pytorch', timedelta(seconds=600)),
                      dict(limit=60))]


def test_start_group_does_on_gpus_what_the_runner_does(calls, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = demo_config(**{'env_cfg.dist_cfg.timeout': 7})
    before = copy.deepcopy(cfg.to_dict())
    start_group('pytorch', cfg)
    assert calls == [
        ('set_multi_processing', (), dict(
            mp_start_method='fork', opencv_num_threads=0, distributed=True)),
        ('init_dist', ('pytorch', ), dict(backend='nccl', timeout=7)),
        ('start_heartbeat', (60, ), {})]
    assert cfg.to_dict() == before


@pytest.mark.parametrize('limit', ['60', -1, float('inf')])
def test_start_group_refuses_wrong_limit(calls, limit):
    with pytest.raises(ValueError, match='heartbeat.limit is '):
        start_group('none', demo_config(
            **{'default_hooks.heartbeat.limit': limit}))


def test_start_group_needs_torchrun_on_gpus_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ValueError, match='torchrun did not start'):
        start_group('pytorch', demo_config())


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
@pytest.mark.parametrize('local_rank, visible, used', [
    (0, 1, 0), (3, 1, 0), (3, 8, 3)])
def test_start_group_uses_the_gpu_of_the_task(
        monkeypatch, launcher, local_rank, visible, used):
    """MMEngine takes the local rank as the index of the GPU.

    ``srun --gpus-per-task=1`` shows one GPU to each rank.
    """
    chosen = []
    monkeypatch.setattr(os, 'environ', dict(
        os.environ, RANK='11', WORLD_SIZE='16', LOCAL_WORLD_SIZE='8',
        LOCAL_RANK=str(local_rank), SLURM_LOCALID=str(local_rank),
        SLURM_PROCID='11', SLURM_NTASKS='16', SLURM_NODELIST='n[1-2]',
        SLURM_STEP_TASKS_PER_NODE='8(x2)', MASTER_ADDR='n1',
        MASTER_PORT='29500'))
    cuda = torch.cuda
    monkeypatch.setattr(cuda, 'is_available', lambda: True)
    monkeypatch.setattr(cuda, 'device_count', lambda: visible)
    monkeypatch.setattr(cuda, 'set_device', chosen.append)
    monkeypatch.setattr(torch.distributed, 'init_process_group',
                        lambda *args, **kwargs: None)
    monkeypatch.setattr(process_group, 'start_heartbeat', lambda limit: None)
    start_group(launcher, demo_config())
    assert chosen == [used]
    assert os.environ['LOCAL_RANK'] == str(used)  # the Runner's device_ids
    assert is_first_of_node() == (local_rank == 0)
    assert os.environ['LOCAL_WORLD_SIZE'] == '8'
