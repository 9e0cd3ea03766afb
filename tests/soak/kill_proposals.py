"""Kill the proposal search at random moments and restart it.

The final file must equal that of an undisturbed search, byte for byte.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]

EXAMPLE = '''
examples:
  python tests/soak/kill_proposals.py --img-prefix data/demo/train
  python tests/soak/kill_proposals.py --img-prefix data/demo/train --ranks 4
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--img-prefix', required=True,
                        help='folder of images')
    parser.add_argument('--kills', type=int, default=10,
                        help='number of kills (default: %(default)s)')
    parser.add_argument('--ranks', type=int,
                        help='start this many processes with torchrun and '
                        'kill one of them (default: a single process without '
                        'torchrun)')
    parser.add_argument('--seed', type=int, default=0,
                        help='seed of the random moments (default: '
                        '%(default)s)')
    return parser.parse_args()


def command(args: argparse.Namespace, out: Path) -> list:
    start = [sys.executable]
    if args.ranks:
        start += ['-m', 'torch.distributed.run', '--nproc-per-node',
                  str(args.ranks)]
    return [*start, str(ROOT / 'tools/generate_proposals.py'), '--img-prefix',
            args.img_prefix, '--out', str(out), '--max-side', '128',
            '--min-size', '32']


def count_recorded(out: Path) -> int:
    """Return the number of images in the journal."""
    return sum(path.read_bytes().count(b'\n')
               for path in Path(f'{out}.parts').glob('*.jsonl'))


def ranks_of(process: subprocess.Popen) -> list:
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(process.pid)],
                           capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def kill_at(args: argparse.Namespace, out: Path, moment: int) -> bool:
    """Start the search and kill it once ``moment`` images are recorded.

    Return False if the search ended before.
    """
    process = subprocess.Popen(command(args, out), cwd=ROOT,
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if count_recorded(out) >= moment:
            victim = process.pid
            if args.ranks:
                victim = random.choice(ranks_of(process) or [process.pid])
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                return False
            process.wait()
            return True
        time.sleep(0.002)
    return False


def main() -> None:
    args = parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        # The same file name, because the file contains it.
        whole, out = (Path(temporary, folder, 'a.npz')
                      for folder in ('undisturbed', 'killed'))
        start = time.time()
        alone = argparse.Namespace(**{**vars(args), 'ranks': None})
        subprocess.run(command(alone, whole), cwd=ROOT, check=True)
        undisturbed = time.time() - start
        number = len(list(Path(args.img_prefix).rglob('*.jpg')))
        moments = sorted(random.sample(range(1, number), args.kills))
        kills = 0
        for moment in moments:
            before = count_recorded(out)
            kills += kill_at(args, out, moment)
            print(f'killed after {count_recorded(out)} of {number} images '
                  f'(before: {before})', flush=True)
        searched = count_recorded(out)
        subprocess.run(command(args, out), cwd=ROOT, check=True)
        same = out.read_bytes() == whole.read_bytes()
        print(f'{kills} kills; {searched} images recorded before the last '
              f'start; undisturbed {undisturbed:.0f} s; identical: {same}')
        if not same or kills < args.kills:
            raise SystemExit(1)


if __name__ == '__main__':
    main()
