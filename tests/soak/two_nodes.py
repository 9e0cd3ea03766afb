"""Break a training on two nodes and measure how long it takes to end.

Each node is a network namespace with its own host name; a third namespace is
the switch between them. ``tools/dist_train.sh`` starts the ranks, with the
default options, gloo, and a tiny model. After a few iterations, the script
causes a fault and waits until no process of either node is left: ranks,
launchers, loader workers. The aim is two minutes. Needs root and Linux.
"""
import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Optional

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import PYTHONPATH, ROOT, make_coco_folder, write_config

EXAMPLE = '''
examples:
  python tests/soak/two_nodes.py
  python tests/soak/two_nodes.py --cases 'link down' 'launcher 0 killed'
'''
START_SECONDS = 180
NODES = (0, 1)
ADDRESSES = ('10.213.0.1', '10.213.0.2')
LOOPBACK = '127.0.1.1'  # what Debian writes for the own host name
MESSAGE = re.compile(r'.*(?:rank \d+ \(host|error: |GLOO_SOCKET_IFNAME).*')


class Network:
    """Two nodes and a switch; removed at the end of the ``with`` block."""

    def __init__(self) -> None:
        self.id = f'univip{os.getpid()}'

    def __enter__(self) -> 'Network':
        self.name_nodes(ADDRESSES)
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for space in (*map(self.space, NODES), self.space('switch')):
            subprocess.run(['ip', 'netns', 'del', space],
                           stderr=subprocess.DEVNULL)
        for node in NODES:
            folder = self._etc(node)
            (folder / 'hosts').unlink(missing_ok=True)
            folder.rmdir()

    def space(self, node) -> str:
        return f'{self.id}-{node}'

    def _etc(self, node: int) -> Path:
        # ip mounts the files of this folder over those of /etc.
        return Path('/etc/netns', self.space(node))

    def name_nodes(self, addresses: Sequence[str]) -> None:
        """Write what each node's own host name resolves to."""
        for node, address in zip(NODES, addresses):
            self._etc(node).mkdir(parents=True, exist_ok=True)
            (self._etc(node) / 'hosts').write_text(
                f'127.0.0.1 localhost\n{address} node{node}\n')

    def _connect(self) -> None:
        switch = self.space('switch')
        ip('netns', 'add', switch)
        ip('-n', switch, 'link', 'add', 'bridge', 'type', 'bridge')
        ip('-n', switch, 'link', 'set', 'bridge', 'up')
        for node, address in zip(NODES, ADDRESSES):
            space = self.space(node)
            ip('netns', 'add', space)
            ip('link', 'add', 'eth0', 'netns', space, 'type', 'veth', 'peer',
               'name', f'port{node}', 'netns', switch)
            ip('-n', switch, 'link', 'set', f'port{node}', 'master', 'bridge',
               'up')
            ip('-n', space, 'address', 'add', f'{address}/24', 'dev', 'eth0')
            for device in ('lo', 'eth0'):
                ip('-n', space, 'link', 'set', device, 'up')

    def start(self, node: int, command: Sequence[str],
              **options) -> subprocess.Popen:
        """Start a command on a node; the process is the command itself."""
        return subprocess.Popen(
            ['ip', 'netns', 'exec', self.space(node), 'unshare', '--uts', 'sh',
             '-c', f'hostname node{node}; exec "$@"', 'sh', *command],
            **options)

    def processes(self, node: int) -> list[int]:
        """Return all processes of a node, also orphans."""
        found = subprocess.run(['ip', 'netns', 'pids', self.space(node)],
                               capture_output=True, text=True, check=True)
        return [int(pid) for pid in found.stdout.split()]

    def cut(self) -> None:
        """Take the link of node 1 down, at the switch."""
        ip('-n', self.space('switch'), 'link', 'set', 'port1', 'down')

    def lose_packets(self) -> None:
        """Unplug node 1 behind the switch: the links of both stay up."""
        ip('-n', self.space('switch'), 'link', 'set', 'port1', 'nomaster')


def ip(*words: str) -> None:
    subprocess.run(['ip', *words], check=True)


class Training:
    """Training on both nodes.

    Args:
        network (Network): The nodes.
        folder (Path): Folder for the output of the nodes.
        configs (Sequence[Path]): Config of each node.
        work_dirs (Sequence[Path]): Work dir of each node.
        ranks (int): Ranks per node.
        options (Sequence[str]): More options of ``tools/train.py``.
    """

    def __init__(self, network: Network, folder: Path,
                 configs: Sequence[Path], work_dirs: Sequence[Path],
                 ranks: int = 1, options: Sequence[str] = ()) -> None:
        self.network, self.work_dirs, self.ranks = network, work_dirs, ranks
        self.outputs = [folder / f'output{node}.txt' for node in NODES]
        environment = dict(
            os.environ, NNODES='2', MASTER_ADDR=ADDRESSES[0],
            PYTHON=sys.executable, PYTHONPATH=PYTHONPATH, OMP_NUM_THREADS='1',
            CUDA_VISIBLE_DEVICES='')
        self.launchers = []
        for node in NODES:
            command = ['bash', str(ROOT / 'tools/dist_train.sh'),
                       str(configs[node]), str(ranks), '--work-dir',
                       str(work_dirs[node]), *options]
            with open(self.outputs[node], 'w') as output:
                self.launchers.append(network.start(
                    node, command, stdout=output, stderr=subprocess.STDOUT,
                    env=dict(environment, NODE_RANK=str(node))))

    def is_running(self) -> bool:
        return any(self.network.processes(node) for node in NODES)

    def wait_for_iterations(self, number: int = 3) -> None:
        """Wait until all ranks have run some iterations."""
        files = [self.work_dirs[rank // self.ranks] / f'rank{rank}.jsonl'
                 for rank in range(2 * self.ranks)]
        deadline = time.monotonic() + START_SECONDS
        while not all(file.exists() and file.read_text().count('\n') >= number
                      for file in files):
            if time.monotonic() > deadline or any(
                    x.poll() is not None for x in self.launchers):
                raise SystemExit('the training did not start:\n'
                                 f'{self.outputs[0].read_text()[-3000:]}')
            time.sleep(0.1)

    def rank(self, rank: int) -> int:
        """Return the process of a rank: a child of its launcher."""
        launcher = self.launchers[rank // self.ranks].pid
        for pid in self.network.processes(rank // self.ranks):
            with contextlib.suppress(OSError):
                status = Path(f'/proc/{pid}/status').read_text()
                words = Path(f'/proc/{pid}/environ').read_bytes().split(b'\0')
                if (f'\nPPid:\t{launcher}\n' in status
                        and b'RANK=%d' % rank in words):
                    return pid
        raise SystemExit(f'there is no process of rank {rank}')

    def wait_for_end(self, seconds: float) -> Optional[float]:
        """Return the seconds until the last process ended, None if longer."""
        start = time.monotonic()
        while self.is_running():
            if time.monotonic() - start > seconds:
                return None
            for launcher in self.launchers:
                launcher.poll()
            time.sleep(0.2)
        return time.monotonic() - start

    def kill(self) -> str:
        """Kill what is left; return what it was, by node."""
        left = []
        for node in NODES:
            for pid in self.network.processes(node):
                with contextlib.suppress(OSError):
                    name = Path(f'/proc/{pid}/cmdline').read_bytes()
                    left.append(f'{node}:' + (
                        'launcher' if pid == self.launchers[node].pid else
                        'rank or worker' if b'train.py' in name else 'other'))
                    os.kill(pid, signal.SIGKILL)
        for launcher in self.launchers:
            launcher.wait()
        return ', '.join(f'{left.count(x)} x {x}' for x in sorted(set(left)))

    def exit_codes(self) -> str:
        return ', '.join(str(x.poll()) for x in self.launchers)

    def message(self) -> str:
        """Return the first line of each node that names the cause."""
        found = [MESSAGE.search(file.read_text()) for file in self.outputs]
        return ' | '.join(
            f'node {node}: {match.group().strip()}'
            for node, match in enumerate(found) if match) or 'none'


@dataclass(frozen=True)
class Case:
    """A fault; ``fault`` is called after a few iterations."""
    name: str
    fault: Optional[Callable[[Training], None]] = None
    ranks: int = 1
    addresses: Sequence[str] = ADDRESSES  # of the host names


def send(training: Training, signal_number: int, rank: int) -> None:
    os.kill(training.rank(rank), signal_number)


def kill_launcher(training: Training, node: int) -> None:
    training.launchers[node].kill()


CASES = [
    Case('rank 1 killed', partial(send, signal_number=signal.SIGKILL, rank=1)),
    Case('rank 0 killed', partial(send, signal_number=signal.SIGKILL, rank=0)),
    Case('rank 1 stopped, alone on its node',
         partial(send, signal_number=signal.SIGSTOP, rank=1)),
    Case('rank 0 stopped, alone on its node',
         partial(send, signal_number=signal.SIGSTOP, rank=0)),
    Case('rank 3 stopped, two ranks per node',
         partial(send, signal_number=signal.SIGSTOP, rank=3), ranks=2),
    Case('rank 3 killed, two ranks per node',
         partial(send, signal_number=signal.SIGKILL, rank=3), ranks=2),
    Case('link down', lambda training: training.network.cut()),
    Case('all packets lost', lambda training: training.network.lose_packets()),
    Case('launcher 0 killed', partial(kill_launcher, node=0)),
    Case('launcher 1 killed', partial(kill_launcher, node=1)),
    Case('launcher 1 killed, two ranks per node',
         partial(kill_launcher, node=1), ranks=2),
    Case('host names on loopback', addresses=(LOOPBACK, LOOPBACK)),
]


@contextlib.contextmanager
def started(case: Case, folder: Path) -> Iterator[Training]:
    """Train one data set into one work dir, as nodes with a common disk do."""
    root = make_coco_folder(folder / 'data', number=64)
    config = write_config(root, seconds=0.2)
    options = ['--cfg-options', 'train_cfg.max_epochs=1000',
               'train_dataloader.num_workers=1']
    with Network() as network:
        network.name_nodes(case.addresses)
        training = Training(network, folder, [config] * 2, [root / 'out'] * 2,
                            case.ranks, options)
        try:
            yield training
        finally:
            training.kill()


def run(case: Case, cap: float) -> tuple[list[str], bool]:
    """Run a case; return the cells of its row, and whether it has ended."""
    with tempfile.TemporaryDirectory() as temporary, started(
            case, Path(temporary)) as training:
        if case.fault is not None:
            training.wait_for_iterations()
            case.fault(training)
        seconds = training.wait_for_end(cap)
        codes, message = training.exit_codes(), training.message()
        left = '' if seconds is not None else f'; left: {training.kill()}'
        return [case.name, f'> {cap:.0f}' if seconds is None else
                f'{seconds:.0f}', codes, message + left], seconds is not None


def run_cases(description: str, examples: str, heading: str,
              cases: Sequence, run: Callable) -> None:
    """Run the cases of the command line, and print a row after each.

    ``run(case, cap)`` returns the cells of the row, and whether the training
    ended as expected.
    """
    names = [case.name for case in cases]
    parser = argparse.ArgumentParser(
        description=description, epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', nargs='+', choices=names, default=names,
                        metavar='CASE', help='cases to run (default: all of '
                        f'them: {"; ".join(names)})')
    parser.add_argument('--cap', type=float, default=120, metavar='SECONDS',
                        help='give up a case after this time, and fail '
                        '(default: %(default)s)')
    args = parser.parse_args()
    if os.geteuid() != 0 or sys.platform != 'linux':
        raise SystemExit('error: network namespaces need root on Linux: run '
                         'this script as root')
    # Ctrl-C and SIGTERM remove the namespaces too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f'| {heading} | exit codes (node 0, node 1) | message |\n'
          '|---|---|---|---|', flush=True)
    wrong = []
    for case in cases:
        if case.name in args.cases:
            cells, is_right = run(case, args.cap)
            wrong += [] if is_right else [case.name]
            print(f'| {" | ".join(x.replace("|", "/") for x in cells)} |',
                  flush=True)
    if wrong:
        raise SystemExit(f'error: not ended as expected: {", ".join(wrong)}')


if __name__ == '__main__':
    run_cases(__doc__, EXAMPLE, 'fault | seconds until the end', CASES, run)
