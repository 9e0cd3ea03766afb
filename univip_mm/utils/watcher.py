"""Watcher process of a rank: see :mod:`univip_mm.utils.heartbeat`.

This file is run as a script and needs only the standard library, so that a
watcher starts in milliseconds and uses little memory. The watchers are
connected with the watcher of rank 0. They exchange lines::

    hello TOKEN RANK NAME       the first line of both sides
    beat                        the watcher runs
    done                        the rank has finished
    stop GRACE SHOW TEXT        end all ranks after GRACE seconds because TEXT
"""
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from threading import Thread
from typing import Optional

MAX_LINE = 2000


@dataclass
class Peer:
    """Another watcher; ``name`` is None until its hello."""
    link: socket.socket
    heard: float
    name: Optional[str] = None
    is_broken: bool = False
    buffer: bytes = field(default=b'', repr=False)

    def send(self, line: str) -> None:
        """Send a line; a broken connection is noticed by its reader."""
        with contextlib.suppress(OSError):
            self.link.send(f'{line}\n'.encode())

    def lines(self) -> Optional[list[str]]:
        """Return the complete lines received, or None at the end."""
        try:
            received = self.link.recv(65536)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        except OSError:  # for example "no route to host"
            self.is_broken = True
            return []
        *lines, self.buffer = (self.buffer + received).split(b'\n')
        if not received or len(self.buffer) > MAX_LINE:
            return None
        return [''.join(c if c.isprintable() else '?' for c in line)
                for line in (x.decode(errors='replace') for x in lines)]


class Watcher:
    """Watcher of one rank.

    Args:
        name (str): Name of the rank in messages.
        rank (int): Number of the rank.
        world_size (int): Number of ranks.
        pid (int): Process of the rank, the parent of this process.
        limit (float): Seconds without an answer after which all ranks end.
        token (str): Word that all watchers of the group know.
        server (int): Descriptor of the listening socket, on rank 0 only.
        link (int): Descriptor of the connection to rank 0, on other ranks;
            -1 if there is none.
        advice (str): End of the message.
        shows (bool): Print messages about other ranks. One rank per host is
            enough.
    """

    def __init__(self, name: str, rank: int, world_size: int, pid: int,
                 limit: float, token: str, server: int, link: int,
                 advice: str, shows: bool) -> None:
        self.name, self.pid, self.limit, self.token = name, pid, limit, token
        # After the end of a rank, the others may still print their own error
        # or finish a checkpoint.
        self.grace = limit / 4
        self.rank, self.expected = rank, world_size - 1
        self.advice, self.shows = advice, shows
        self.selector = selectors.DefaultSelector()
        self.peers: list[Peer] = []
        self.ticked = time.monotonic()
        self.cpu_ticks = 0
        self._works()  # the CPU time at the start
        self.answered = server >= 0  # the rank waits for rank 0's hello
        self.exits = False  # the rank ends by itself, with its own message
        self.text, self.shown = '', False
        self.kill_at = float('inf')
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, self._read_rank)
        self.listener: Optional[socket.socket] = None
        if server >= 0:
            self.listener = socket.socket(fileno=server)
            self.listener.setblocking(False)
            self.selector.register(
                self.listener, selectors.EVENT_READ, self._accept)
        elif link >= 0:
            self._add(socket.socket(fileno=link)).send(
                f'hello {token} {rank} {name}')
        else:
            self._answer_rank(b'')

    def run(self) -> None:
        """Watch until the rank has ended."""
        interval = self.limit / 30
        woken = sent = time.monotonic()
        while True:
            events = self.selector.select(interval)
            now = time.monotonic()
            if now - woken > self.limit / 2:
                # All processes were suspended: nobody could answer.
                self.ticked = now
                for peer in self.peers:
                    peer.heard = now
            woken = now
            for key, _ in events:
                key.data()
            self._check(now)
            if now - sent >= interval:
                sent = now
                self._send_all('beat')

    def _check(self, now: float) -> None:
        if os.getppid() != self.pid:
            self._rank_ended()
        if now - self.ticked > self.limit and self._works():
            self.ticked = now
        if now - self.ticked > self.limit:
            self._stop(0, True, f'{self.name} has not answered for '
                       f'{self.limit:g} s: its process is stopped or hangs')
        for peer in self.peers:
            if peer.name is not None and now - peer.heard > self.limit:
                self._stop(0, True, f'no connection to {peer.name} for '
                           f'{self.limit:g} s')
        if now >= self.kill_at:
            if os.getppid() == self.pid:
                # SIGTERM is handled by a rank, which may wait for ever.
                os.kill(self.pid, signal.SIGKILL)
            self._show()
            sys.exit()

    def _works(self) -> bool:
        """Return True if the rank has used CPU time since the last call.

        Long work in one call, such as the parsing of a large JSON, keeps the
        other threads of Python from running.
        """
        before = self.cpu_ticks
        try:
            with open(f'/proc/{self.pid}/stat') as file:
                # The name, in parentheses, may contain spaces.
                fields = file.read().rpartition(') ')[2].split()
        except OSError:
            return False
        self.cpu_ticks = int(fields[11]) + int(fields[12])
        return fields[0] not in 'Tt' and self.cpu_ticks > before

    def _read_rank(self) -> None:
        try:
            ticks = os.read(0, 4096)
        except BlockingIOError:
            return
        self.ticked = time.monotonic()
        self._works()
        if b'd' in ticks:
            self._send_all('done')
            sys.exit()
        self.exits |= b'x' in ticks
        if not ticks:
            self._rank_ended()

    def _rank_ended(self) -> None:
        if not self.text:
            how = 'has ended' if self.exits else 'was killed'
            self._stop(self.grace, not self.exits, f'{self.name} {how}')
        sys.exit()

    def _stop(self, grace: float, show: bool, text: str) -> None:
        """Decide that all ranks end, and inform the other watchers."""
        self.kill_at = min(self.kill_at, time.monotonic() + grace)
        if self.text:
            return
        self.text = text
        self._send_all(f'stop {grace} {int(show)} {text}')
        if show:
            self._show()

    def _show(self) -> None:
        if self.shown or self.peers and not self.shows:
            return
        self.shown = True
        line = f'error: {self.text}; all ranks end: {self.advice}\n'
        # A thread, because a terminal or pipe that is not read blocks it.
        thread = Thread(target=os.write, args=(2, line.encode()), daemon=True)
        thread.start()
        thread.join(1)

    def _send_all(self, line: str) -> None:
        for peer in self.peers:
            if peer.name is not None:
                peer.send(line)

    def _answer_rank(self, answer: bytes) -> None:
        """Inform the rank once that rank 0 has answered, or cannot."""
        if not self.answered:
            self.answered = True
            with contextlib.suppress(OSError):  # the rank waits no longer
                os.write(1, answer)
            os.close(1)

    def _accept(self) -> None:
        assert self.listener is not None
        try:
            link, _ = self.listener.accept()
        except OSError:
            return
        self._add(link)

    def _add(self, link: socket.socket) -> Peer:
        link.setblocking(False)
        peer = Peer(link, time.monotonic())
        self.peers.append(peer)
        self.selector.register(link, selectors.EVENT_READ,
                               lambda: self._read_peer(peer))
        return peer

    def _remove(self, peer: Peer) -> None:
        if not peer.is_broken:
            self.selector.unregister(peer.link)
        self.peers.remove(peer)
        peer.link.close()
        self._answer_rank(b'')

    def _read_peer(self, peer: Peer) -> None:
        lines = peer.lines()
        if lines is None:
            self._remove(peer)
            if peer.name is not None:
                self._stop(self.grace, True, f'{peer.name} has ended')
            return
        if peer.is_broken:  # _check reports the silence
            self.selector.unregister(peer.link)
        for line in lines:
            word, _, rest = line.partition(' ')
            if word == 'hello':
                self._greet(peer, rest)
            if peer.name is None or word == 'done':
                self._remove(peer)
                return
            peer.heard = time.monotonic()
            if word == 'stop':
                grace, show, text = rest.split(' ', 2)
                self._stop(float(grace), show == '1', text)

    def _greet(self, peer: Peer, rest: str) -> None:
        token, _, rest = rest.partition(' ')
        if token != self.token:
            return
        is_new = peer.name is None
        _, _, peer.name = rest.partition(' ')
        if self.listener is None:
            self._answer_rank(b'.')
        if self.listener is None or not is_new:
            return
        peer.send(f'hello {self.token} {self.rank} {self.name}')
        self.expected -= 1
        if not self.expected:
            self.selector.unregister(self.listener)
            self.listener.close()


if __name__ == '__main__':
    # Ctrl-C and Slurm signal all processes; a watcher ends with its rank.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Watcher(**json.loads(sys.argv[1])).run()
