"""Kill a training with SIGKILL many times and resume it each time.

Half of the kills come at a random moment, the others while a checkpoint is
written. The checkpoint that ``--resume`` uses must always be whole, and the
final weights must be bit-identical to those of an undisturbed training. The
data are 8 images; the model is a narrow ResNet-18 with a checkpoint after each
epoch.
"""
import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from tiny import (
    PYTHONPATH,
    ROOT,
    free_port,
    make_coco_folder,
    write_config,
)

from univip_mm.engine.checkpoint import latest_checkpoint, load_checkpoint

EXAMPLE = '''
example:
  python tests/soak/kill_training.py --kills 20 --processes 2
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20,
                        help='number of kills (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=1,
                        help='number of ranks (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=60,
                        help='length of the training (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='seed of the random moments (default: '
                        '%(default)s)')
    return parser.parse_args()


def start(args: argparse.Namespace, config: Path,
          work_dir: Path) -> subprocess.Popen:
    command = [sys.executable]
    if args.processes > 1:
        command += ['-m', 'torch.distributed.run',
                    f'--nproc-per-node={args.processes}',
                    f'--master-port={free_port()}']
    command += [str(ROOT / 'tools/train.py'), str(config), '--work-dir',
                str(work_dir), '--resume', '--cfg-options',
                f'train_cfg.max_epochs={args.epochs}',
                f'param_scheduler.1.end={args.epochs}',
                'default_hooks.checkpoint.max_keep_ckpts=1']
    if args.processes > 1:
        command += ['--launcher', 'pytorch']
    environment = dict(
        os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
        PYTHONPATH=PYTHONPATH)
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE)


def descendants(pid: int) -> list[int]:
    """Return all processes below a process.

    torchrun starts its processes in new sessions, so a process group would
    not include them.
    """
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(pid)],
                           capture_output=True, text=True).stdout
    children = [int(child) for child in found.split()]
    return children + [x for child in children for x in descendants(child)]


def wait_for_moment(process: subprocess.Popen, work_dir: Path,
                    while_writing: bool, rng: random.Random) -> bool:
    """Wait for the moment to kill.

    Return True if a checkpoint was being written at this moment.
    """
    lines = work_dir / 'rank0.jsonl'
    before = lines.stat().st_size if lines.exists() else 0
    while process.poll() is None:
        if while_writing:
            if list(work_dir.glob('*.part')):
                return True
        elif lines.exists() and lines.stat().st_size > before:
            time.sleep(rng.uniform(0, 2))
            return bool(list(work_dir.glob('*.part')))
    raise SystemExit('the training ended before it was killed:\n'
                     + process.stderr.read().decode()[-3000:])


def main() -> None:
    args = parse_args()
    rng = random.Random(args.seed)
    writing, leftovers, longest = 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        root = make_coco_folder(Path(temporary, 'data'))
        config = write_config(root)
        work_dir, whole = root / 'killed', root / 'undisturbed'
        for kill in range(args.kills):
            process = start(args, config, work_dir)
            writing += wait_for_moment(process, work_dir, bool(kill % 2), rng)
            for pid in [process.pid, *descendants(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            leftovers += len(list(work_dir.glob('*.part')))
            path, skipped = latest_checkpoint(str(work_dir))
            named = work_dir / 'last_checkpoint'
            # The checkpoint is renamed before it is named.
            if named.exists() and not Path(named.read_text()).is_file():
                raise SystemExit(f'{named} names no complete checkpoint')
            if skipped:
                raise SystemExit(f'not whole: {skipped}')
            done = len((work_dir / 'rank0.jsonl').read_text().splitlines())
            iteration = load_checkpoint(path)['meta']['iter'] if path else 0
            print(f'kill {kill + 1}: resumes after iteration {iteration}; '
                  f'{done} iterations were run so far', flush=True)
            longest = max(longest, iteration)
        last = start(args, config, work_dir)
        undisturbed = start(args, config, whole)
        errors = [x.communicate()[1] for x in (last, undisturbed)]
        if last.returncode or undisturbed.returncode:
            raise SystemExit(b'\n'.join(errors).decode()[-3000:])
        a, b = (load_checkpoint(str(
            folder / f'epoch_{args.epochs}.pth'))['state_dict']
            for folder in (work_dir, whole))
        same = all(torch.equal(a[name], b[name]) for name in b)
    print(f'\nkills                              {args.kills}\n'
          f'processes                          {args.processes}\n'
          f'kills while writing a checkpoint   {writing}\n'
          f'truncated checkpoints              0\n'
          f'temporary files left               {leftovers}\n'
          f'final weights                      '
          f'{"bit-identical" if same else "DIFFERENT"}')
    if not same:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
