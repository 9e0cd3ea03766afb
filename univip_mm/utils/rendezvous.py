"""Meeting of the ranks before they form a process group.

PyTorch is imported in the functions, because the proposal search works
without it.
"""
import fcntl
import json
import os
import socket
import struct
import sys
import time
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Optional

_SIOCGIFADDR = 0x8915  # netdevice(7) of Linux
# Time that rank 0, which may host the store, waits for the slower ranks.
_READ_SECONDS = 10


class JoinError(ValueError):
    """Ranks that cannot form a process group."""


def is_started() -> bool:
    """Return True if this process is in a process group."""
    module = sys.modules.get('torch.distributed')
    return (module is not None and module.is_available()
            and module.is_initialized())


def open_store(timeout: Optional[timedelta] = None) -> Any:
    """Connect to the store of the launcher, with a key prefix of our own.

    ``timeout`` is the maximum time to wait for the store, and later for one
    of its keys. Defaults to that of PyTorch.

    Raises:
        JoinError: There is no connection.
    """
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous
    options = {} if timeout is None else dict(timeout=timeout)
    try:
        store, _, _ = next(rendezvous('env://', **options))
    except RuntimeError as e:
        env = os.environ
        raise JoinError(
            f'rank {env["RANK"]} (host {socket.gethostname()}) cannot meet '
            f'the other ranks at {env["MASTER_ADDR"]}:{env["MASTER_PORT"]} '
            f'({first_line(e)}): check that MASTER_ADDR is the host of rank 0 '
            'and that all ranks were started') from None
    if timeout is not None:
        store.set_timeout(timeout)
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    # One launcher can start several groups, one after the other.
    stage = os.environ.get('UNIVIP_STAGE', '')
    return PrefixStore(f'univip_mm/{attempt}{stage and "/"}{stage}', store)


def check_addresses(store: Any, timeout: timedelta) -> None:
    """Check that the ranks can connect to the addresses that gloo will use.

    gloo uses the address of the host name. If it is a loopback address, one
    host fails and the other hosts wait until the timeout.

    Raises:
        JoinError: On all ranks: the ranks are on several hosts and the
            address of a rank is a loopback address, or a rank is missing.
    """
    rank, size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    store.set(f'address/{rank}', json.dumps(_describe_host()))
    hosts = []
    for other in range(size):
        try:
            hosts.append(json.loads(store.get(f'address/{other}')))
        except RuntimeError as e:
            raise JoinError(
                f'rank {other} did not join within '
                f'{timeout.total_seconds():g} s ({first_line(e)}): look at '
                'its output') from None
    store.add('address/read', 1)
    if len({host['network'] for host in hosts}) == 1:
        return
    for other, host in enumerate(hosts):
        if host['loopback']:
            _wait_for_readers(store, rank, size)
            raise JoinError(
                f'rank {other} (host {host["name"]}): the host name resolves '
                f'to {host["address"]}, which other hosts cannot reach: set '
                f'GLOO_SOCKET_IFNAME={host["interface"]} on this host (on '
                'GPUs also NCCL_SOCKET_IFNAME), or correct its /etc/hosts')


def first_line(error: Exception) -> str:
    """Return the first line of a message of PyTorch, which can be long."""
    return str(error).strip().split('\n')[0]


def _wait_for_readers(store: Any, rank: int, size: int) -> None:
    deadline = time.monotonic() + _READ_SECONDS
    while (rank == 0 and store.add('address/read', 0) < size
           and time.monotonic() < deadline):
        time.sleep(0.1)


def _describe_host() -> dict:
    address = _gloo_address()
    return dict(
        name=socket.gethostname(), network=_network(), address=address,
        loopback='GLOO_SOCKET_IFNAME' not in os.environ
        and ip_address(address.split('%')[0]).is_loopback,
        interface=_interface_to_master())


def _network() -> str:
    """Return the identity of the network namespace."""
    with open('/proc/sys/kernel/random/boot_id') as file:
        return file.read().strip() + os.readlink('/proc/self/ns/net')


def _gloo_address() -> str:
    """Return the first address of the host name that this host has."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None,
                                   type=socket.SOCK_STREAM)
    except OSError:
        found = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
            return str(address[0])
        except OSError:
            continue
    return '127.0.0.1'  # as gloo does


def _interface_to_master() -> str:
    """Return the network interface that leads to MASTER_ADDR."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((os.environ['MASTER_ADDR'], 9))  # sends nothing
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                if name != 'lo' and _address_of(probe, name) == own:
                    return name
    except OSError:
        pass
    return 'INTERFACE'


def _address_of(probe: socket.socket, interface: str) -> str:
    request = struct.pack('256s', interface.encode()[:15])
    try:
        reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
    except OSError:  # an interface without an IPv4 address
        return ''
    return socket.inet_ntoa(reply[20:24])
