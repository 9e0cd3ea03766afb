"""Tests of the scripts in tools/benchmarks/, without the workers."""
import os
import subprocess
import sys
from argparse import Namespace
from importlib.util import find_spec

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from tiny import ROOT

from univip_mm.downstream.launch import (
    WORKER,
    slurm_command,
    torchrun_command,
    worker_arguments,
)

BENCHMARKS = ROOT / 'tools' / 'benchmarks'
SCRIPTS = sorted(BENCHMARKS.glob('*/*.sh'))


@pytest.fixture
def pre_training(tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        resnet = MODELS.build(dict(type='ResNet', depth=18)).state_dict()
    path = tmp_path / 'epoch_3.pth'
    torch.save({f'{branch}.{name}': value for name, value in resnet.items()
                for branch in ('backbone', 'target_net.module.0')}, path)
    return path


def config(tmp_path, depth=18, trains=True):
    path = tmp_path / 'my_config.py'
    path.write_text(f'''
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier', backbone=dict(
    type='ResNet', depth={depth}))
{'train_dataloader = dict()' if trains else ''}
''')
    return path


def arguments(config, checkpoint, tool='train', **changes):
    return Namespace(**{**dict(
        package='mmpretrain', tool=tool, config=str(config),
        checkpoint=str(checkpoint), work_dir=str(config.parent / 'out'),
        cfg_options=None, rest=[]), **changes})


def test_worker_arguments_train_from_backbone(tmp_path, pre_training):
    path = config(tmp_path)
    words = worker_arguments(arguments(
        path, pre_training, cfg_options=['a=b c'], rest=['--resume']))
    out = tmp_path / 'out'
    assert words == [
        'mmpretrain', 'train', str(path), '--work-dir', str(out), '--resume',
        '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={out}/backbone.pth', 'a=b c']
    assert (out / 'backbone.pth').is_file()


def test_worker_arguments_test_backbone_as_model(tmp_path, pre_training):
    path = config(tmp_path, trains=False)
    words = worker_arguments(arguments(path, pre_training, tool='test'))
    whole = tmp_path / 'out' / 'whole.pth'
    assert words == ['mmpretrain', 'test', str(path), str(whole),
                     '--work-dir', str(tmp_path / 'out')]
    assert all(name.startswith('backbone.') for name in torch.load(
        whole, weights_only=True)['state_dict'])


def test_worker_arguments_test_trained_checkpoint(tmp_path):
    trained = tmp_path / 'epoch_12.pth'
    torch.save({'backbone.conv1.weight': torch.ones(1),
                'head.fc.weight': torch.ones(1)}, trained)
    words = worker_arguments(arguments(config(tmp_path), trained, tool='test'))
    assert words[3] == str(trained)


def test_work_dir_defaults_to_config_and_checkpoint(
        tmp_path, pre_training, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = worker_arguments(
        arguments(config(tmp_path), pre_training, work_dir=None))
    assert words[words.index('--work-dir') + 1] == os.path.join(
        'work_dirs', 'benchmarks', 'my_config', 'epoch_3')


@pytest.mark.parametrize('tool, trains, depth, word', [
    ('train', False, 18, 'trains nothing: run dist_test.sh'),
    ('test', True, 18, 'train with dist_train.sh'),
    ('train', True, 50, 'the checkpoint is a ResNet-18'),
    ('test', False, 50, 'the checkpoint is a ResNet-18'),
])
def test_worker_arguments_reject_wrong_checkpoint(
        tmp_path, pre_training, tool, trains, depth, word):
    with pytest.raises(ValueError, match=word) as e:
        worker_arguments(arguments(
            config(tmp_path, depth, trains), pre_training, tool))
    assert '\n' not in str(e.value)


def test_worker_arguments_name_missing_config(tmp_path, pre_training):
    with pytest.raises(FileNotFoundError, match='no config'):
        worker_arguments(arguments(tmp_path / 'no.py', pre_training))


def test_torchrun_command_without_gpus():
    assert torchrun_command(0, ['a'], {}) == [
        sys.executable, '-m', WORKER, 'a']
    assert find_spec(WORKER)


def test_torchrun_command_on_two_machines():
    environment = dict(PORT='1', NNODES='2', NODE_RANK='1',
                       MASTER_ADDR='10.0.0.1')
    assert torchrun_command(8, ['a'], environment) == [
        sys.executable, '-m', 'torch.distributed.run', '--nnodes=2',
        '--node-rank=1', '--master-addr=10.0.0.1', '--master-port=1',
        '--rdzv-conf=timeout=300', '--nproc-per-node=8', '-m', WORKER, 'a',
        '--launcher=pytorch']


def test_torchrun_command_needs_the_address_of_node_0():
    with pytest.raises(ValueError, match='NNODES is 2 but MASTER_ADDR is not'):
        torchrun_command(8, ['a'], dict(NNODES='2', NODE_RANK='1'))


def test_slurm_command_starts_one_task_per_gpu():
    words = slurm_command(16, ['a'], dict(PARTITION='gpu', SRUN_ARGS='-t 3-0'))
    assert words == [
        'srun', '--partition=gpu', '--job-name=univip', '--gres=gpu:8',
        '--ntasks=16', '--ntasks-per-node=8', '--cpus-per-task=5',
        '--kill-on-bad-exit=1', '-t', '3-0', sys.executable, '-u',
        '-m', WORKER, 'a', '--launcher=slurm']
    with pytest.raises(ValueError, match='give 1 or more'):
        slurm_command(0, ['a'], {})


def bash(script, *words):
    return subprocess.run(
        ['bash', script, *map(str, words)], text=True, capture_output=True,
        timeout=120, env=dict(os.environ, PYTHON=sys.executable,
                              OMP_NUM_THREADS='1'))


def test_scripts_are_complete():
    assert [f'{x.parent.name}/{x.stem}' for x in SCRIPTS] == [
        f'{folder}/{name}'
        for folder in ('classification', 'mmdetection', 'mmsegmentation')
        for name in ('dist_test', 'dist_train', 'slurm_train')]


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda x: f'{x.parts[-2:]}')
def test_script_with_too_few_arguments_shows_usage(script):
    ended = bash(script, 'config.py', 'checkpoint.pth')
    assert ended.returncode == 2 and ended.stdout == ''
    assert f'{script.parent.name}/{script.name} ' in ended.stderr
    assert ended.stderr.endswith('.\n') and '#' not in ended.stderr
    assert 'set -euo' not in ended.stderr


def test_script_reports_error_in_one_line(tmp_path):
    ended = bash(BENCHMARKS / 'classification' / 'dist_train.sh',
                 tmp_path / 'no.py', tmp_path / 'no.pth', 0)
    assert ended.returncode == 1 and ended.stdout == ''
    assert ended.stderr.splitlines()[-1] == (
        f"error: there is no config '{tmp_path}/no.py'")
    assert 'Traceback' not in ended.stderr
