"""Heartbeat: all ranks end if one of them ends, stops or is cut off.

A rank in a collective operation waits for the other ranks, for minutes or for
ever. Therefore each rank starts a small process, its watcher
(:mod:`univip_mm.utils.watcher`). A thread of the rank writes to the watcher
every few seconds. The watchers are connected with the watcher of rank 0. If a
rank or a connection is silent for ``limit`` seconds, each watcher kills its
rank with SIGKILL and one message names the cause.
"""
import atexit
import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
from typing import Any, Optional

from . import watcher
from .processes import is_first_of_node
from .rendezvous import JoinError, first_line, is_started, open_store

LIMIT = 60.0  # seconds
ADVICE = '--resume continues from the last checkpoint'
CONNECT_SECONDS = ANSWER_SECONDS = 10

_running: Optional['_Heartbeat'] = None
_number_of_starts = 0


def start_heartbeat(limit: float = LIMIT, advice: str = ADVICE,
                    store: Any = None) -> None:
    """Start the watcher of this rank; all ranks must call this function.

    Do nothing if the watcher already runs, if this process is not in a group
    of at least two that uses the environment variables of PyTorch, or if
    ``limit`` is 0. If the watcher of rank 0 cannot be reached, for example
    because of a firewall, print a warning: then ranks that end or stop on
    other hosts are noticed only after the timeout of the group.

    Args:
        limit (float): Seconds without an answer after which all ranks end.
            A rank that uses CPU time counts as answering.
        advice (str): End of the message, how to continue.
        store (torch.distributed.Store, optional): Store of a group that is
            about to start. Defaults to that of the running group.
    """
    global _running, _number_of_starts
    if _running is not None or int(os.environ.get('WORLD_SIZE', 1)) < 2:
        return
    if store is None:
        if not is_started() or 'MASTER_ADDR' not in os.environ:
            return
        store = open_store()
    _number_of_starts += 1
    key = f'beat{_number_of_starts}'
    if _is_on(store, key, limit) and limit:
        _running = _Heartbeat(limit, advice, store, key)


def _is_on(store: Any, key: str, limit: float) -> bool:
    """Return True if rank 0 has a heartbeat.

    The limits can differ, if a rank could not read its config.
    """
    if os.environ['RANK'] == '0':
        store.set(f'{key}-limit', str(limit))
        return True
    try:
        return float(store.get(f'{key}-limit')) > 0
    except RuntimeError as e:
        raise JoinError(f'rank 0 did not answer ({first_line(e)}): look at '
                        'its output') from None


def stop_heartbeat() -> None:
    """Tell the other watchers that this rank has finished.

    The heartbeat of all ranks stops with that of rank 0.
    """
    global _running
    if _running is not None:
        _running.stop()
        _running = None


class _Heartbeat:

    def __init__(self, limit: float, advice: str, store: Any,
                 key: str) -> None:
        rank, address = int(os.environ['RANK']), os.environ['MASTER_ADDR']
        server = link = None
        if rank == 0:
            server, token = _listen(), secrets.token_hex(16)
            store.set(key, f'{server.getsockname()[1]} {token}')
        else:
            port, token = store.get(key).decode().split()
            link = _connect(address, int(port))
        self._process = _start_watcher(server, link, dict(
            name=f'rank {rank} (host {socket.gethostname()}, pid '
            f'{os.getpid()})', rank=rank, pid=os.getpid(), limit=limit,
            world_size=int(os.environ['WORLD_SIZE']), token=token,
            advice=advice, shows=is_first_of_node()))
        assert self._process.stdin and self._process.stdout
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._stopping = threading.Event()
        threading.Thread(target=self._tick, args=(limit / 30, ), daemon=True,
                         name='heartbeat').start()
        atexit.register(self._write, b'x')
        with self._process.stdout as stdout:
            if rank != 0 and not (select.select(
                    [stdout], [], [], ANSWER_SECONDS)[0] and stdout.read(1)):
                print(f'warning: rank {rank} runs without heartbeat: no '
                      f'answer from rank 0 at {address}:{port}; open the TCP '
                      'ports between the hosts, or a dead rank is noticed '
                      'only after env_cfg.dist_cfg.timeout', file=sys.stderr)

    def _tick(self, interval: float) -> None:
        while not self._stopping.wait(interval):
            self._write(b'.')

    def _write(self, byte: bytes) -> None:
        # The pipe is full or broken if the watcher is stopped or dead.
        with contextlib.suppress(OSError):
            os.write(self._pipe, byte)

    def stop(self) -> None:
        self._stopping.set()
        atexit.unregister(self._write)
        self._write(b'd')
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin
        self._process.stdin.close()


def _start_watcher(server: Optional[socket.socket],
                   link: Optional[socket.socket],
                   options: dict) -> subprocess.Popen:
    """Start a watcher that inherits a socket."""
    options.update(server=server.fileno() if server else -1,
                   link=link.fileno() if link else -1)
    sockets = [x for x in (server, link) if x]
    # -I -S: neither variables nor site packages can break the watcher.
    process = subprocess.Popen(
        [sys.executable, '-I', '-S', watcher.__file__, json.dumps(options)],
        pass_fds=[x.fileno() for x in sockets], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, bufsize=0)
    for x in sockets:
        x.close()
    return process


def _listen() -> socket.socket:
    backlog = int(os.environ['WORLD_SIZE'])
    try:
        return socket.create_server(
            ('', 0), family=socket.AF_INET6, dualstack_ipv6=True,
            backlog=backlog)
    except (OSError, ValueError):  # no IPv6
        return socket.create_server(('', 0), backlog=backlog)


def _connect(address: str, port: int) -> Optional[socket.socket]:
    try:
        return socket.create_connection((address, port), CONNECT_SECONDS)
    except OSError:
        return None
