"""Start the training processes, and show their progress."""
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Optional

from tqdm import tqdm

from ..io.files import parse_json
from ..utils.command import TOOLS, VARIABLE, environment
from ..utils.processes import die_with_parent
from ..utils.progress import track
from ..utils.text import printable
from .recipe import Devices
from .run_folder import RunFolder

TRAIN = TOOLS / 'train.py'
# Lines of the log that the user should see at once; MMEngine's remarks on its
# own code are not for the user.
_SHOWN = re.compile(r'(WARNING|ERROR|CRITICAL) - (?!.*deprecated)|error: ')
_WAIT = 0.5  # seconds between two looks at the log
# Seconds until a training that was asked to end is killed. It ends after its
# step, which can take minutes on a CPU.
_PATIENCE = 300
_STOPPING = ('stopping: the training saves a checkpoint; press Ctrl-C again '
             'to end at once')


class TrainingError(RuntimeError):
    """Error of a training that did not finish."""


def training_command(run: RunFolder, devices: Devices, launcher: str,
                     resume: bool) -> list[str]:
    """Return the command that trains OUT/config.py.

    ``launcher`` is 'none' if this process starts all others, otherwise the
    launcher that has started one such process per device.
    """
    start = [sys.executable]
    train = [str(TRAIN), str(run.config), *(['--resume'] if resume else [])]
    if launcher != 'none':
        return [*start, *train, '--launcher', launcher]
    if devices.count == 1:
        return [*start, *train]
    return [*start, '-m', 'torch.distributed.run', '--standalone',
            f'--nproc-per-node={devices.count}', *train,
            '--launcher', 'pytorch']


def train(run: RunFolder, devices: Devices, launcher: str = 'none',
          resume: bool = False, max_iters: int = 0, batch_size: int = 0,
          is_first: bool = True) -> None:
    """Train in other processes until they end, with a progress bar.

    All that they print goes to OUT/log.txt. Warnings and errors are shown
    too. If this process is killed, so are they. At Ctrl-C, SIGTERM, or the end
    of the terminal, they save a checkpoint and end; a second Ctrl-C kills
    them.

    Args:
        run (RunFolder): The run, with its config.
        devices (Devices): The devices.
        launcher (str): As in :func:`training_command`.
        resume (bool): Resume from the latest checkpoint.
        max_iters (int): Iterations of the whole training, for the bar.
        batch_size (int): Images per iteration, for the rate.
        is_first (bool): This is the first rank, which shows the progress.

    Raises:
        TrainingError: The training did not finish.
        KeyboardInterrupt: The user stopped it.
    """
    env = {**environment(), 'PYTHONUNBUFFERED': '1'}
    if devices.visible is not None:
        env['CUDA_VISIBLE_DEVICES'] = devices.visible
    env.pop(VARIABLE, None)
    if launcher != 'none' and env.get(
            'TORCHELASTIC_USE_AGENT_STORE') != 'True':
        # The store of the ranks that made the proposals may still use it.
        env['MASTER_PORT'] = str(int(env['MASTER_PORT']) + 1)
    env['UNIVIP_STAGE'] = 'training'
    command = training_command(run, devices, launcher, resume)
    with open(run.log if is_first else os.devnull, 'ab') as log:
        start = log.tell()
        begin = time.time()
        process = subprocess.Popen(
            command, env=env, stdout=log,
            stderr=log if is_first else None, stdin=subprocess.DEVNULL,
            start_new_session=True,  # _pass_signals_on() passes signals on
            preexec_fn=partial(die_with_parent, os.getpid()))
    with _pass_signals_on(process, is_first):
        if is_first:
            _show_progress(run, process, start, begin, max_iters, batch_size)
    if process.returncode:
        raise TrainingError(_reason(run, start, process.returncode, is_first))


@contextmanager
def _pass_signals_on(process: subprocess.Popen,
                     is_first: bool) -> Iterator[None]:
    """Wait for a training, and pass on what asks this process to end.

    The training has a session of its own. The terminal, ``timeout`` and
    torchrun signal the session or the process group of this process only.
    Other threads than the main thread get no signals.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup
                before[number] = signal.signal(
                    number, lambda *_: process.terminate())
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            before[signal.SIGTSTP] = signal.signal(
                signal.SIGTSTP, lambda *_: _pause(process))
    try:
        yield
        process.wait()
    except BaseException as e:
        _end(process, is_first and isinstance(e, KeyboardInterrupt))
        raise
    finally:
        process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen, show: bool) -> None:
    """Ask a training to save a checkpoint and end; kill it at Ctrl-C."""
    try:
        process.terminate()
        if show:
            with suppress(OSError):  # the reader of a pipe has ended
                print(_STOPPING, file=sys.stderr, flush=True)
        process.wait(_PATIENCE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()


def _pause(process: subprocess.Popen) -> None:
    """Stop the training and this process at Ctrl-Z, until ``fg``."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGCONT)


def _show_progress(run: RunFolder, process: subprocess.Popen, start: int,
                   begin: float, max_iters: int, batch_size: int) -> None:
    """Show a bar and the warnings until the process has ended."""
    bar = track([], total=max_iters, unit='step', desc='pre-training')
    bar.refresh()
    lines = _follow(run.log, start)
    scalars: Optional[Iterator[str]] = None
    shown = set()
    with bar:
        while True:
            ended = process.poll() is not None
            for line in _new(lines):
                text = line.partition(' - mmengine - ')[2] or line
                if _SHOWN.match(text) and text not in shown:
                    shown.add(text)
                    tqdm.write(f'  {printable(text)}', file=sys.stderr)
            if scalars is None and (path := _scalars(run, begin)):
                scalars = _follow(path, 0)
            for line in _new(scalars):
                _update(bar, line, batch_size)
            if ended:
                return
            time.sleep(_WAIT)


def _update(bar: tqdm, line: str, batch_size: int) -> None:
    """Move the bar to a line of scalars.json."""
    try:
        values = parse_json(line)
        step, loss = int(values['step']), float(values['loss'])
        seconds = float(values['time'])
    except (ValueError, KeyError, TypeError):
        return  # a line without these values, such as that of a probe
    if not bar.n:
        bar.initial = bar.n = max(0, step - 1)  # of a resumed training
    rate = batch_size / seconds if seconds else 0.
    bar.set_postfix_str(f'loss {loss:.3f}, {rate:.1f} images/s',
                        refresh=False)
    bar.update(step - bar.n)


def _scalars(run: RunFolder, begin: float) -> Optional[Path]:
    """Return the newest scalars.json, if it was written since ``begin``."""
    found = [path for path in run.checkpoints.glob('*/vis_data/scalars.json')
             if path.stat().st_mtime >= begin - 1]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _follow(path: Path, start: int) -> Iterator[Optional[str]]:
    """Yield the complete lines of a growing file, and None at its end."""
    with open(path, 'rb') as file:
        file.seek(start)
        rest = b''
        while True:
            block = file.read()
            *lines, rest = (rest + block).split(b'\n')
            yield from (line.decode(errors='replace') for line in lines)
            yield None


def _new(lines: Optional[Iterator[Optional[str]]]) -> Iterator[str]:
    for line in lines or ():
        if line is None:
            return
        yield line


def _reason(run: RunFolder, start: int, code: int, is_first: bool) -> str:
    """Return why the training ended, from the end of its log."""
    name = printable(run.log)
    if not is_first:
        return f'the training ended with exit code {code}'
    text = [line for line in _new(_follow(run.log, start)) if line.strip()]
    error = [line for line in text if line.startswith('error: ')]
    if error:
        reason = error[0][len('error: '):].replace('--cfg-options', '--set')
        return f'{reason} (the whole log: {name})'
    # torchrun ends with exit code 1.
    if code in (-signal.SIGTERM, 128 + signal.SIGTERM) or any(
            'got SIGTERM: saved' in line for line in text):
        return ('the training was stopped by SIGTERM: repeat the command to '
                'go on')
    last = printable(text[-1]) if text else 'it printed nothing'
    return (f'the training ended with exit code {code} ({last}): see {name}; '
            'repeat the command to go on from the last checkpoint')
