import os
import stat
import subprocess
import sys
from datetime import timedelta

import pytest
import torch.distributed as dist

from univip_mm.utils import distributed
from univip_mm.utils.distributed import local_world_size, start_gloo
from univip_mm.utils.rendezvous import JoinError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(os, 'environ', dict(PATH=os.environ['PATH']))
    started = []
    for module, name in ((distributed, 'open_store'),
                         (distributed, 'start_heartbeat'),
                         (distributed, 'check_addresses'),
                         (dist, 'init_process_group')):
        monkeypatch.setattr(
            module, name, lambda *args, _name=name, **kwargs:
            started.append((_name, args, kwargs)) or 'store')
    return started


def test_start_gloo_ignores_launcher_none(environment):
    start_gloo('none')
    assert environment == [] and local_world_size() == 1


def test_start_gloo_uses_torchrun_environment(environment):
    os.environ.update(RANK='1', WORLD_SIZE='2')
    start_gloo('pytorch', timedelta(7), 30, 'advice')
    assert environment == [
        ('open_store', (timedelta(minutes=5), ), {}),
        # Before the ranks connect, so that none waits for one that failed.
        ('start_heartbeat', (30, 'advice', 'store'), {}),
        ('check_addresses', ('store', timedelta(minutes=5)), {}),
        ('init_process_group', ('gloo', ), dict(
            store='store', rank=1, world_size=2, timeout=timedelta(7)))]


@pytest.mark.parametrize('options, group, join', [
    ([], 600, 300), ([timedelta(seconds=7)], 7, 7)])
def test_start_gloo_limits_the_wait(environment, options, group, join):
    os.environ.update(RANK='0', WORLD_SIZE='1')
    start_gloo('pytorch', *options)
    (_, (join_timeout, ), _), (_, _, of_group) = environment
    assert join_timeout == timedelta(seconds=join)
    assert of_group['timeout'] == timedelta(seconds=group)


def test_start_gloo_reports_failed_connection(environment, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError('Connection refused\nmore')
    monkeypatch.setattr(dist, 'init_process_group', fail)
    os.environ.update(RANK='1', WORLD_SIZE='2')
    with pytest.raises(JoinError, match=r'cannot connect rank 1 \(host .* '
                       r'\(Connection refused\): set GLOO_SOCKET_IFNAME'):
        start_gloo('pytorch')


def test_start_gloo_converts_slurm_environment(environment, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostname n[3-5]" ] && '
                        'printf "n3\\nn4\\nn5\\n"\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IEXEC)
    os.environ.update(
        PATH=f'{tmp_path}:{os.environ["PATH"]}', SLURM_PROCID='4',
        SLURM_NTASKS='5', SLURM_LOCALID='0', SLURM_NODELIST='n[3-5]',
        SLURM_STEP_TASKS_PER_NODE='2(x2),1')
    start_gloo('slurm')
    assert environment[-1][2]['rank'] == 4
    expected = dict(RANK='4', WORLD_SIZE='5', LOCAL_RANK='0',
                    LOCAL_WORLD_SIZE='2', MASTER_ADDR='n3',
                    MASTER_PORT='29500')
    assert {k: os.environ[k] for k in expected} == expected


@pytest.mark.parametrize('launcher, message', [
    ('pytorch', 'torchrun did not start'), ('slurm', 'srun did not start'),
    ('mpi', 'choose one of none, pytorch, slurm')])
def test_start_gloo_refuses_wrong_launcher(launcher, message):
    with pytest.raises(ValueError, match=message):
        start_gloo(launcher)


ONE_PROCESS = '''
import os
import torch
from torch.nn.parallel import DistributedDataParallel
from univip_mm.utils.distributed import is_started, leave, start_gloo

def count_threads():
    return len(os.listdir('/proc/self/task'))

def train():
    network = DistributedDataParallel(torch.nn.Linear(10, 10))
    network.cycle = [network]  # a reference cycle, as Runner and hooks
    network(torch.rand(4, 10)).sum().backward()

torch.set_num_threads(1)
torch.nn.Linear(10, 10)(torch.rand(4, 10)).sum().backward()
before = count_threads()
start_gloo('pytorch')
train()
during = count_threads()
leave()
print(before, during, count_threads(), is_started())
'''


def test_leave_ends_threads_of_group(tmp_path):
    # A remaining thread sometimes aborts Python at exit.
    words = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone',
         '--nproc-per-node=1', '--no-python', sys.executable, '-c',
         ONE_PROCESS], text=True, check=True, env=dict(os.environ),
        stdout=subprocess.PIPE, cwd=tmp_path).stdout.split()
    before, during, after = map(int, words[:3])
    assert during > before >= after and words[3] == 'False'
