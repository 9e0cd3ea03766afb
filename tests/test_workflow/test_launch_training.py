import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from processes import is_alive, state
from tiny import ROOT
from warm_python import warm_python

from univip_mm.workflow import launch
from univip_mm.workflow.launch import TrainingError, train, training_command
from univip_mm.workflow.recipe import Devices
from univip_mm.workflow.run_folder import RunFolder


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
def run(tmp_path, monkeypatch, terminal):
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
    ('sys.exit("error: try --cfg-options a=1")', 'try --set a=1 '),
    ('raise KeyError("x")', r'exit code 1 \(KeyError.*repeat the command'),
    ('os.kill(os.getpid(), 15)', 'stopped by SIGTERM'),
    ('print("got SIGTERM: saved \'a\'")\nsys.exit(1)', 'stopped by SIGTERM')])
def test_train_reports_why_it_ended(run, end, text):
    with pytest.raises(TrainingError, match=text):
        train(run(end), CPU, max_iters=10, batch_size=32)


def send_when_ready(run, *signals):
    """Send signals to this process, each after a line of the log."""
    def send():
        for count, number in enumerate(signals, 1):
            while not run.log.exists() or (
                    run.log.read_text().count('ready') < count):
                time.sleep(0.05)
            os.kill(os.getpid(), number)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


COUNT = '''import signal
for number in (1, 2, 15):
    signal.signal(number, lambda n, _: print("ready: signal", n, flush=True))
print("ready", flush=True)
time.sleep({seconds})
'''


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_train_passes_the_end_on(run, number):
    run = run('import signal\n'
              'signal.signal(15, lambda *_: sys.exit("error: saved"))\n'
              'print("ready", flush=True)\n'
              'time.sleep(60)')
    thread = send_when_ready(run, number)
    with pytest.raises(TrainingError, match='saved'):
        train(run, CPU, max_iters=10, batch_size=32)
    thread.join()


@pytest.mark.parametrize('is_first', [True, False])
def test_train_saves_at_ctrl_c(run, capsys, tmp_path, is_first):
    ended = tmp_path / 'ended'
    run = run('import signal\n'
              'def save(*_):\n'
              '    time.sleep(0.5)\n'
              f'    pathlib.Path({str(ended)!r}).touch()\n'
              '    sys.exit(143)\n'
              'signal.signal(15, save)\n'
              f'open({str(run("").log)!r}, "a").write("ready")\n'
              'time.sleep(60)')
    thread = send_when_ready(run, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(run, CPU, max_iters=10, batch_size=32, is_first=is_first)
    thread.join()
    assert ended.exists()
    assert ('press Ctrl-C again' in capsys.readouterr().err) == is_first


def test_train_ends_at_second_ctrl_c(run):
    run = run(COUNT.format(seconds=60))
    thread = send_when_ready(run, signal.SIGINT, signal.SIGINT)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train(run, CPU, max_iters=10, batch_size=32)
    thread.join()
    assert time.monotonic() - begin < 30
    assert 'signal 15' in run.log.read_text()


def test_train_waits_for_checkpoint_after_an_error(run, monkeypatch):
    """The reader of the progress has ended, as ``head`` does."""
    run = run('import signal\n'
              'def save(*_):\n'
              '    time.sleep(1)\n'
              '    print("saved", flush=True)\n'
              '    sys.exit(143)\n'
              'signal.signal(2, lambda *_: sys.exit(130))\n'
              'signal.signal(15, save)\n'
              'print("ready", flush=True)\n'
              'time.sleep(60)')

    def fail(run, *_):
        while not run.log.exists() or 'ready' not in run.log.read_text():
            time.sleep(0.05)
        raise BrokenPipeError
    monkeypatch.setattr(launch, '_show_progress', fail)
    monkeypatch.setattr(launch, '_PATIENCE', 5)  # a tenth is not enough
    with pytest.raises(BrokenPipeError):
        train(run, CPU, max_iters=10, batch_size=32)
    assert 'saved' in run.log.read_text()


def test_train_kills_a_hanging_training(run, monkeypatch):
    run = run(COUNT.format(seconds=60))

    def fail(run, *_):
        while not run.log.exists() or 'ready' not in run.log.read_text():
            time.sleep(0.05)
        raise BrokenPipeError
    monkeypatch.setattr(launch, '_show_progress', fail)
    monkeypatch.setattr(launch, '_PATIENCE', 0.5)
    begin = time.monotonic()
    with pytest.raises(BrokenPipeError):
        train(run, CPU, max_iters=10, batch_size=32)
    assert time.monotonic() - begin < 30


PARENT = """
import sys
from pathlib import Path
from univip_mm.workflow import launch
launch.TRAIN = Path({train!r})
launch.train(launch.RunFolder({run!r}), launch.Devices{devices},
             max_iters=10, batch_size=32)
"""


def start_parent(run, tmp_path, python, **options):
    """Start a process that trains, and wait until the training is ready."""
    parent = tmp_path / 'parent.py'
    parent.write_text(PARENT.format(train=str(launch.TRAIN),
                                    run=str(run.path), devices=tuple(CPU)))
    process = subprocess.Popen([python, parent], **options)
    while not run.log.exists() or 'ready' not in run.log.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_train_gets_signals_of_the_group_once(run, tmp_path, number):
    """As ``timeout``, torchrun and the terminal send them."""
    run = run(COUNT.format(seconds=2))
    process = start_parent(run, tmp_path, sys.executable, cwd=ROOT,
                           stderr=subprocess.DEVNULL, start_new_session=True)
    process.send_signal(signal.SIGSTOP)  # to pass the signal on later
    os.killpg(process.pid, number)
    time.sleep(0.3)
    process.send_signal(signal.SIGCONT)
    process.wait(60)
    assert run.log.read_text().partition('ready\n')[2] == 'ready: signal 15\n'


def test_train_pauses_at_ctrl_z(run, tmp_path):
    run = run('print(json.dumps(os.getpid()), flush=True)\n'
              'print("ready", flush=True)\ntime.sleep(2)')
    process = start_parent(run, tmp_path, sys.executable, cwd=ROOT,
                           stderr=subprocess.DEVNULL, start_new_session=True)
    child = int(run.log.read_text().splitlines()[-2])
    os.killpg(process.pid, signal.SIGTSTP)
    wait_for(lambda: state(process.pid) == state(child) == 'T')
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0


def test_train_ends_with_its_parent(run, tmp_path):
    run = run('print(json.dumps(os.getpid()), flush=True)\n'
              'print("ready", flush=True)\ntime.sleep(60)')
    process = start_parent(run, tmp_path, warm_python())
    child = int(run.log.read_text().splitlines()[-2])
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(child))
