import os
import sys

import pytest
import torch
from mmengine.config import Config

from univip_mm.downstream import worker
from univip_mm.downstream.launch import parse_options
from univip_mm.downstream.worker import cpu_options

SYNC_BN = dict(type='SyncBN', requires_grad=True)
CONFIG = Config(dict(
    find_unused_parameters=True,
    model=dict(backbone=dict(norm_cfg=SYNC_BN), neck=dict(norm_cfg=SYNC_BN),
               head=dict(norm_cfg=dict(type='GN')))))


@pytest.fixture
def gpu(monkeypatch):
    def fake(available):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: available)
    return fake


def test_cpu_options_set_bn_and_model_wrapper(gpu):
    gpu(False)
    cfg = Config(CONFIG.to_dict())
    cfg.merge_from_dict(parse_options(cpu_options(cfg, 'pytorch')))
    assert cfg.model.backbone.norm_cfg == dict(type='BN', requires_grad=True)
    assert cfg.model.neck.norm_cfg.type == 'BN'
    assert cfg.model.head.norm_cfg.type == 'GN'
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', device_ids=None,
        broadcast_buffers=False, find_unused_parameters=True)


@pytest.mark.parametrize('launcher, available', [
    ('none', False), ('none', True), ('pytorch', True), ('slurm', True)])
def test_cpu_options_empty_on_gpu_or_in_one_process(
        gpu, launcher, available):
    gpu(available)
    assert cpu_options(CONFIG, launcher) == []


def test_worker_passes_arguments_to_tool(gpu, tmp_path, monkeypatch):
    gpu(False)
    (tmp_path / 'config.py').write_text("model = dict(norm=dict(type='BN'))")
    tool = tmp_path / 'train.py'
    tool.write_text('import sys\nfrom pathlib import Path\n'
                    'assert __name__ == "__main__"\n'
                    'Path(sys.argv[1] + ".words").write_text('
                    '"\\n".join(sys.argv))')
    monkeypatch.setattr(worker, 'find_tool', lambda package, name: tool)
    config = str(tmp_path / 'config.py')
    monkeypatch.setattr(sys, 'argv', [
        'worker', 'mmdet', 'train', config, '--work-dir', 'out',
        '--cfg-options', 'a.b=1', 'c=d e', '--launcher=none'])
    worker.main()
    assert (tmp_path / 'config.py.words').read_text().split('\n') == [
        str(tool), config, '--work-dir', 'out', '--launcher', 'none',
        '--cfg-options', 'a.b=1', 'c=d e']


def test_worker_uses_the_only_gpu(gpu, tmp_path, monkeypatch):
    """``srun --gpus-per-task=1`` shows one GPU to each rank."""
    gpu(True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(os, 'environ', dict(os.environ, SLURM_LOCALID='3'))
    (tmp_path / 'config.py').write_text('')
    tool = tmp_path / 'train.py'
    tool.write_text('import os\nassert os.environ["SLURM_LOCALID"] == "0"')
    monkeypatch.setattr(worker, 'find_tool', lambda package, name: tool)
    monkeypatch.setattr(sys, 'argv', [
        'worker', 'mmdet', 'train', str(tmp_path / 'config.py'),
        '--launcher=slurm'])
    worker.main()
