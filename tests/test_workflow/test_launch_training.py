import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from processes import is_alive
from warm_python import warm_python

from univip_mm.workflow import launch
from univip_mm.workflow.launch import TrainingError, train, training_command
from univip_mm.workflow.recipe import Devices
from univip_mm.workflow.run_folder import RunFolder

CPU = Devices('cpu', 1, 'CPU', visible='')
# Writes what a training writes, and ends with the code in its environment.
SCRIPT = '''
import json, os, pathlib, sys, time
print('11/27 10:00:00 - mmengine - WARNING - 3 images were too small')
print('11/27 10:00:00 - mmengine - WARNING - FileClient will be deprecated')
folder = pathlib.Path(sys.argv[1]).parent / 'checkpoints/1/vis_data'
folder.mkdir(parents=True)
with open(folder / 'scalars.json', 'w') as file:
    for step in (5, 10):
        file.write(json.dumps(dict(loss=-1.25, time=0.5, step=step)) + chr(10))
print('visible', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)
{end}
'''


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, '_WAIT', 0.05)
    run = RunFolder(tmp_path / 'run')
    run.path.mkdir()

    def use(end):
        script = tmp_path / 'train.py'
        script.write_text(SCRIPT.format(end=end))
        monkeypatch.setattr(launch, 'TRAIN', script)
        return run
    return use


def test_training_command_starts_all_devices(tmp_path):
    run = RunFolder(tmp_path)
    alone = training_command(run, CPU, 'none', resume=True)
    assert alone == [sys.executable, str(launch.TRAIN), str(run.config),
                     '--resume']
    many = training_command(run, CPU._replace(count=3), 'none', False)
    assert 'torch.distributed.run' in many
    assert '--nproc-per-node=3' in many
    assert many[-2:] == ['--launcher', 'pytorch']
    ours = training_command(run, CPU._replace(count=3), 'slurm', False)
    assert 'torch.distributed.run' not in ours
    assert ours[-2:] == ['--launcher', 'slurm']


def test_train_shows_progress_and_warnings(run, capsys):
    run = run('')
    train(run, CPU, max_iters=10, batch_size=32)
    shown = capsys.readouterr().err
    assert '10/10' in shown
    assert 'loss -1.250, 64.0 images/s' in shown
    assert 'WARNING - 3 images were too small' in shown
    assert 'deprecated' not in shown
    assert run.log.read_text().endswith('visible \n')  # no GPU


@pytest.mark.parametrize('end, text', [
    ('sys.exit("error: the disk is full")', 'the disk is full .*log.txt'),
    ('raise KeyError("x")', r'exit code 1 \(KeyError.*repeat the command'),
    ('os.kill(os.getpid(), 15)', 'stopped by SIGTERM')])
def test_train_reports_why_it_ended(run, end, text):
    with pytest.raises(TrainingError, match=text):
        train(run(end), CPU, max_iters=10, batch_size=32)


def test_train_passes_sigterm_on(run):
    run = run('import signal\n'
              'signal.signal(15, lambda *_: sys.exit("error: saved"))\n'
              'print("ready", flush=True)\n'
              'time.sleep(60)')

    def stop():
        while not run.log.exists() or 'ready' not in run.log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(TrainingError, match='saved'):
        train(run, CPU, max_iters=10, batch_size=32)
    thread.join()


def test_train_ends_with_its_parent(run, tmp_path):
    run = run('print(json.dumps(os.getpid()), flush=True)\ntime.sleep(60)')
    parent = tmp_path / 'parent.py'
    parent.write_text(f"""
from pathlib import Path
from univip_mm.workflow import launch
launch.TRAIN = Path({str(launch.TRAIN)!r})
devices = launch.Devices{tuple(CPU)}
launch.train(launch.RunFolder({str(run.path)!r}), devices, max_iters=10,
             batch_size=32)
""")
    process = subprocess.Popen([warm_python(), parent])
    text = ''
    while not text.strip().isdigit():
        assert process.poll() is None
        time.sleep(0.05)
        text = run.log.read_text().splitlines()[-1] if (
            run.log.exists() and run.log.read_text()) else ''
    process.kill()
    process.wait()
    deadline = time.time() + 10
    while is_alive(json.loads(text)) and time.time() < deadline:
        time.sleep(0.05)
    assert not is_alive(json.loads(text))
