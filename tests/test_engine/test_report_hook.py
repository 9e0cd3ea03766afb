"""Reports during a tiny training, and by the command after it."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_engine.test_effective_rank_hook import runner_of
from tiny import error_of, run_tool, write_config
from visual_files import write_log

import univip_mm.visualization.report
from univip_mm.engine import ReportHook
from univip_mm.io.work_dir_lock import work_dir_lock
from univip_mm.visualization import neighbours


def write_hooks(folder, options=''):
    config = write_config(folder)
    config.write_text(config.read_text() + (
        f"custom_hooks += [dict(type='ReportHook', {options})]\n"
        'default_hooks.update(logger=dict(interval=1))\n'))
    return config


@pytest.mark.parametrize('model', ['', '''
model['backbone']['type'] = 'VectorResNet'
model['neck']['with_avg_pool'] = False
'''], ids=['maps', 'vectors'])
def test_report_is_written_during_and_after(coco_folder, monkeypatch,
                                            capsys, model):
    states = []
    write = univip_mm.visualization.report.write_report

    def record(folder, state=None):
        states.append(state)
        return write(folder, state) if state != 'running' else None

    monkeypatch.setattr(univip_mm.visualization.report, 'write_report', record)
    out = coco_folder / 'out'
    config = write_hooks(coco_folder, f'out={str(out)!r}, seconds=0')
    config.write_text(config.read_text() + model)
    run_tool('train', config, '--work-dir', out / 'checkpoints')
    assert states == 8 * ['running'] + ['finished']
    text = (out / 'report.html').read_text()
    assert '8 of 8' in text and 'rank_backbone' in text
    assert 'Nearest neighbours' in text and '2 of 2' in text
    # The command finds the checkpoint.
    (out / 'neighbours.png').unlink()
    run_tool('report', out)
    assert (out / 'neighbours.png').stat().st_size > 1000
    assert 'report: ' in capsys.readouterr().out


@pytest.mark.parametrize('error', [
    RuntimeError('CUDA out of memory.\nTried'), KeyError('model'),
    ImportError('no module')])
def test_report_tool_needs_no_neighbours(tmp_path, monkeypatch, capsys,
                                         error):
    write_log(tmp_path, '20260101_000000', range(9))

    def fail(*_):
        raise error

    monkeypatch.setattr(neighbours, '_load', fail)
    run_tool('report', tmp_path)
    warning, path = capsys.readouterr().out.splitlines()
    assert warning.startswith(f'no nearest neighbours: {type(error).__name__}')
    assert path == f'report: {tmp_path}/report.html'


def test_report_tool_leaves_gpu_to_a_training(tmp_path, monkeypatch):
    write_log(tmp_path, '20260101_000000', range(9))
    config = tmp_path / '20260101_000000/vis_data/config.py'
    config.touch()
    devices = []
    monkeypatch.setattr(neighbours, 'latest_checkpoint',
                        lambda _: ('epoch_1.pth', []))
    monkeypatch.setattr(neighbours.inspection, 'load_setup',
                        lambda args, device: devices.append(device))
    neighbours._load(tmp_path)
    with work_dir_lock(tmp_path):
        neighbours._load(tmp_path)
    assert devices == [None, 'cpu']


def test_report_tool_names_missing_training(tmp_path):
    assert f"no training log in '{tmp_path}/x'" in error_of(
        'report', tmp_path / 'x')
    assert list(tmp_path.iterdir()) == []


def test_broken_report_warns_once(tmp_path):
    texts, runner = [], runner_of(max_iters=3)
    runner.logger = SimpleNamespace(warning=texts.append)
    runner.work_dir = str(tmp_path)  # without a log
    hook = ReportHook(seconds=0)
    hook.before_train(runner)
    states = torch.get_rng_state(), np.random.get_state()[1]
    for runner.iter in range(3):
        hook._next = 0
        hook.after_train_iter(runner, 0)
    hook.after_train(runner)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert len(texts) == 1
    assert 'the report is incomplete: FileNotFoundError: no tr' in texts[0]


def test_hook_refuses_invalid_options():
    with pytest.raises(ValueError, match='ReportHook: seconds is -1'):
        ReportHook(seconds=-1)
