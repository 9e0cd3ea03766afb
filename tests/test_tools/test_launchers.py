import os
import subprocess
import sys

import pytest
import torch
from tiny import ROOT, free_port, watched, write_config
from warm_python import warm_python

DIST, SLURM = (ROOT / 'tools' / f'{name}_train.sh' for name in
               ('dist', 'slurm'))

# Stands for Python and srun; prints one argument per line.
FAKE = '#!/usr/bin/env bash\nprintf "PYTHONPATH=%s\\n" "$PYTHONPATH"\n' \
       'printf "%s\\n" "$@"\n'


def bash(script, *arguments, **environment):
    names = ('GPUS', 'GPUS_PER_NODE', 'CPUS_PER_TASK', 'SRUN_ARGS', 'PORT',
             'NNODES', 'NODE_RANK', 'MASTER_ADDR', 'JOIN_TIMEOUT',
             'PYTHON', 'PYTHONPATH')
    kept = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(
        ['bash', script, *map(str, arguments)], text=True,
        capture_output=True, timeout=240, env={**kept, **environment})


@pytest.fixture
def fake(tmp_path):
    """Add an interpreter and an srun that print their arguments."""
    for name in ('srun', 'my python'):
        path = tmp_path / 'bin' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE)
        path.chmod(0o755)
    return dict(PATH=f'{tmp_path}/bin:{os.environ["PATH"]}',
                PYTHON=f'{tmp_path}/bin/my python')


def test_two_cpu_processes_train_one_network(coco_folder):
    work_dir = coco_folder / 'out'
    ended = bash(
        DIST, write_config(coco_folder), 2, '--work-dir', work_dir,
        '--cfg-options', 'train_cfg.max_epochs=2', PORT=free_port(),
        PYTHON=sys.executable, PYTHONPATH=str(ROOT / 'tests'),
        CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    assert ended.returncode == 0, ended.stderr[-3000:]

    first, second = watched(work_dir, 0), watched(work_dir, 1)
    # Each rank has four images in batches of two: two iterations per epoch.
    assert [x['iter'] for x in first] == [0, 1, 2, 3]
    assert [x['iter'] for x in second] == [0, 1, 2, 3]
    assert ([x['lr'] for x in first] == [x['lr'] for x in second])
    # The ranks have different images, so different losses ...
    assert all(a['loss'] != b['loss'] for a, b in zip(first, second))
    # ... but average their gradients, so they have the same weights.
    assert ([x['parameters'] for x in first] ==
            [x['parameters'] for x in second])
    assert len({x['parameters'] for x in first}) == 4

    checkpoints = sorted(x.name for x in work_dir.glob('*.pth'))
    assert checkpoints == ['epoch_1.pth', 'epoch_2.pth']
    weights = torch.load(
        work_dir / 'epoch_2.pth', weights_only=False)['state_dict']
    assert not any(name.startswith('module.') for name in weights)
    logs = [x for x in work_dir.glob('*/*.log') if x.stat().st_size]
    assert len(logs) == 1 and len(list(work_dir.rglob('scalars.json'))) == 1
    lines = [x for x in ended.stdout.splitlines() if 'Epoch(train)' in x]
    assert len(lines) == 4


def test_killed_launcher_leaves_no_orphans(coco_folder):
    work_dir = coco_folder / 'out'
    launcher = subprocess.Popen(
        ['bash', DIST, write_config(coco_folder, seconds=0.2), '1',
         '--work-dir', work_dir, '--cfg-options', 'train_cfg.max_epochs=999'],
        env=dict(os.environ, PORT=free_port(), PYTHON=sys.executable,
                 PYTHONPATH=str(ROOT / 'tests'), CUDA_VISIBLE_DEVICES='',
                 OMP_NUM_THREADS='1'),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in launcher.stdout:
        if b'Epoch(train)' in line:
            break
    launcher.kill()
    launcher.stdout.read()  # ends with the last process that writes to it
    assert launcher.wait() == -9


def test_sync_bn_on_cpu_ends_with_fix(coco_folder):
    ended = bash(
        DIST, ROOT / 'configs' / 'univip_r50_coco.py', 2, '--work-dir',
        coco_folder, PORT=free_port(), PYTHON=warm_python(),
        CUDA_VISIBLE_DEVICES='')
    assert ended.returncode != 0
    assert 'error: SyncBN needs a GPU' in ended.stderr
    assert '--cfg-options model.backbone.norm_cfg.type=BN' in ended.stderr


@pytest.mark.parametrize('script, arguments', [
    (DIST, []),
    (DIST, ['config.py']),
    (SLURM, []),
    (SLURM, ['partition', 'job', 'config.py']),
])
def test_missing_arguments_show_usage(script, arguments):
    ended = bash(script, *arguments)
    assert ended.returncode == 2 and ended.stdout == ''
    assert f'bash tools/{script.name} ' in ended.stderr
    assert 'GLOO_SOCKET_IFNAME' in ended.stderr
    assert 'NCCL_SOCKET_IFNAME' in ended.stderr
    assert ended.stderr.endswith('.\n')  # whole sentences, no code
    assert 'set -euo' not in ended.stderr and '#' not in ended.stderr


def test_dist_train_starts_torchrun(fake):
    ended = bash(DIST, 'my config.py', 8, '--amp', '--cfg-options', 'a=b c',
                 **fake)
    assert ended.returncode == 0
    path, *words = ended.stdout.splitlines()
    assert words == [
        '-m', 'torch.distributed.run', '--nnodes=1', '--node-rank=0',
        '--master-addr=127.0.0.1', '--master-port=29500',
        '--rdzv-conf=timeout=300', '--nproc-per-node=8',
        f'{ROOT}/tools/train.py', 'my config.py', '--launcher', 'pytorch',
        '--amp', '--cfg-options', 'a=b c'
    ]
    assert path == f'PYTHONPATH={ROOT}/tools/..'


def test_dist_train_passes_machine_options(fake):
    ended = bash(DIST, 'config.py', 8, NNODES='2', NODE_RANK='1', PORT='1234',
                 MASTER_ADDR='10.0.0.1', JOIN_TIMEOUT='7', PYTHONPATH='/mine',
                 **fake)
    path, *words = ended.stdout.splitlines()
    assert words[2:7] == [
        '--nnodes=2', '--node-rank=1', '--master-addr=10.0.0.1',
        '--master-port=1234', '--rdzv-conf=timeout=7']
    assert path == f'PYTHONPATH={ROOT}/tools/..:/mine'


def test_dist_train_needs_the_address_of_node_0(fake):
    ended = bash(DIST, 'config.py', 8, NNODES='2', NODE_RANK='1', **fake)
    assert ended.returncode == 2 and ended.stderr.startswith(
        'error: NNODES is 2 but MASTER_ADDR is not set')


def test_slurm_train_starts_one_task_per_gpu(fake):
    ended = bash(SLURM, 'gpu', 'univip', 'my config.py', 'work dir',
                 '--resume', '--cfg-options', 'a=b c', GPUS='16',
                 SRUN_ARGS='--time 3-0 --qos=high', **fake)
    assert ended.returncode == 0
    path, *words = ended.stdout.splitlines()
    assert words == [
        '-p', 'gpu', '--job-name=univip', '--gres=gpu:8', '--ntasks=16',
        '--ntasks-per-node=8', '--cpus-per-task=8', '--kill-on-bad-exit=1',
        '--time', '3-0', '--qos=high', fake['PYTHON'], '-u',
        f'{ROOT}/tools/train.py', 'my config.py', '--work-dir=work dir',
        '--launcher=slurm', '--resume', '--cfg-options', 'a=b c'
    ]
    assert path == f'PYTHONPATH={ROOT}/tools/..'


@pytest.mark.parametrize('environment, expected', [
    ({}, ['gpu:8', '8', '8', '8']),
    (dict(GPUS='4'), ['gpu:4', '4', '4', '8']),
    (dict(GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='5'),
     ['gpu:4', '16', '4', '5']),
])
def test_slurm_train_requests_only_needed_resources(
        fake, environment, expected):
    words = bash(SLURM, 'gpu', 'job', 'config.py', 'out', **environment,
                 **fake).stdout.splitlines()
    values = dict(word.split('=', 1) for word in words if '=' in word)
    assert [values[f'--{name}'] for name in
            ('gres', 'ntasks', 'ntasks-per-node', 'cpus-per-task')] == expected
