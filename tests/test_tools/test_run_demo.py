import json
import subprocess
from pathlib import Path

import matplotlib.image
import pytest
import torch
from warm_python import warm_python

ROOT = Path(__file__).parents[2]


def run(*args):
    return subprocess.run(
        [warm_python(), str(ROOT / 'tools/demo/run_demo.py'),
         *map(str, args)], capture_output=True, text=True)


@pytest.mark.timeout(600)
def test_run_demo_evaluates_and_exports_backbone(tmp_path):
    done = run('--data-dir', tmp_path / 'data', '--work-dir',
               tmp_path / 'work', '--num-train', '40', '--num-val', '30',
               '--epochs', '1')
    assert done.returncode == 0, done.stderr[-3000:]
    assert '=== 8/8' in done.stdout
    summary = done.stdout[done.stdout.index('Frozen features'):]
    for line in ('k-NN, mAP', 'linear, mAP', 'k-NN, balanced accuracy'):
        assert line in summary
    for name in ('trained', 'untrained'):
        metrics = json.loads(
            (tmp_path / 'work' / name / 'metrics.json').read_text())
        assert 0 <= metrics['probe/linear_mAP'] <= 100
        assert f"{metrics['probe/linear_mAP']:.1f}" in summary
    for picture in ('scenes/scenes_001.png', 'losses.png'):
        path = tmp_path / 'work' / picture
        assert matplotlib.image.imread(path).std() > 0.05
        assert str(path) in summary
    backbone = torch.load(
        tmp_path / 'work' / 'univip_r18_demo_backbone.pth')['state_dict']
    assert backbone['conv1.weight'].shape == (32, 3, 7, 7)


def test_run_demo_stops_at_failed_step(tmp_path):
    done = run('--data-dir', tmp_path / 'data', '--num-train', '0')
    assert done.returncode == 1
    assert 'num_train is 0' in done.stderr
    assert 'error: tools/demo/make_data.py ended' in done.stderr
