"""Kill the search for proposals at random moments and start it again, until
it is through; the file must be that of an undisturbed search, byte for
byte.
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
                        help='default: %(default)s')
    parser.add_argument('--ranks', type=int,
                        help='processes of torchrun, of which one is killed '
                        '(default: no torchrun; the one process is killed)')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def command(args: argparse.Namespace, out: Path) -> list:
    start = [sys.executable]
    if args.ranks:
        start += ['-m', 'torch.distributed.run', '--nproc-per-node',
                  str(args.ranks)]
    return [*start, str(ROOT / 'tools/generate_proposals.py'), '--img-prefix',
            args.img_prefix, '--out', str(out), '--max-side', '128',
            '--min-size', '32']


def noted(out: Path) -> int:
    """Images that the journal holds."""
    return sum(path.read_bytes().count(b'\n')
               for path in Path(f'{out}.parts').glob('*.jsonl'))


def ranks_of(process: subprocess.Popen) -> list:
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(process.pid)],
                           capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def kill_at(args: argparse.Namespace, out: Path, moment: int) -> bool:
    """Start, and kill once ``moment`` images are noted; whether it came to
    that."""
    process = subprocess.Popen(command(args, out), cwd=ROOT,
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if noted(out) >= moment:
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
        # One name: the file tells that of the list of its images.
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
            before = noted(out)
            kills += kill_at(args, out, moment)
            print(f'killed at {noted(out)} of {number} images noted '
                  f'(before: {before})', flush=True)
        searched = noted(out)
        subprocess.run(command(args, out), cwd=ROOT, check=True)
        same = out.read_bytes() == whole.read_bytes()
        print(f'{kills} kills, {searched} images noted before the last start; '
              f'undisturbed {undisturbed:.0f} s; the same bytes: {same}')
        if not same or kills < args.kills:
            raise SystemExit(1)


if __name__ == '__main__':
    main()
