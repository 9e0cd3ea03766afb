import os
from datetime import timedelta

import pytest
from tiny import free_port

from univip_mm.utils import rendezvous
from univip_mm.utils.rendezvous import JoinError, check_addresses, open_store

SECOND = timedelta(seconds=1)


class Store(dict):
    """Store of a group whose other ranks have already written."""

    def set(self, key, value):
        self[key] = value

    def get(self, key):
        if key not in self:
            raise RuntimeError('wait timeout\nlong text')
        return self[key].encode()

    def add(self, key, number):
        self[key] = self.get_number(key) + number
        return self[key]

    def get_number(self, key):
        return super().get(key, 1)  # the other rank has read all addresses


@pytest.fixture
def ranks(monkeypatch):
    """Return a function that checks rank 0 against one other rank."""
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.delenv('GLOO_SOCKET_IFNAME', raising=False)

    def check(own='10.0.0.1', other='10.0.0.2', same_host=False, **environ):
        hosts = []
        for address, network in ((own, 'a'), (other, 'a' if same_host else
                                              'b')):
            monkeypatch.setattr(rendezvous, '_gloo_address', lambda x=address:
                                x)
            monkeypatch.setattr(rendezvous, '_network', lambda x=network: x)
            for name, value in environ.items():
                monkeypatch.setenv(name, value)
            hosts.append(rendezvous._describe_host())
        monkeypatch.setattr(rendezvous, '_describe_host', lambda: hosts[0])
        check_addresses(Store({'address/1': rendezvous.json.dumps(hosts[1])}),
                        SECOND)

    return check


def test_check_addresses_accepts_reachable_hosts(ranks):
    ranks()


@pytest.mark.parametrize('address', ['127.0.0.1', '127.0.1.1', '::1'])
def test_check_addresses_refuses_loopback(ranks, address):
    with pytest.raises(JoinError) as e:
        ranks(other=address)
    message = str(e.value)
    assert message.startswith('rank 1 (host ') and address in message
    assert 'set GLOO_SOCKET_IFNAME=' in message
    assert 'NCCL_SOCKET_IFNAME' in message and '\n' not in message


def test_check_addresses_accepts_loopback_on_one_host(ranks):
    ranks('127.0.0.1', '127.0.0.1', same_host=True)


def test_check_addresses_accepts_chosen_interface(ranks):
    ranks('127.0.1.1', '127.0.1.1', GLOO_SOCKET_IFNAME='eth0')


def test_check_addresses_names_missing_rank(ranks):
    with pytest.raises(JoinError, match='rank 1 did not join within 1 s .*: '
                       'look at its output'):
        check_addresses(Store(), SECOND)


def test_gloo_address_is_one_of_this_host(monkeypatch):
    monkeypatch.setattr(
        rendezvous.socket, 'getaddrinfo', lambda *args, **kwargs: [
            (2, 1, 6, '', ('203.0.113.9', 0)), (2, 1, 6, '', ('127.0.0.1', 0))
        ])
    assert rendezvous._gloo_address() == '127.0.0.1'


def test_open_store_ends_without_rank_0(monkeypatch):
    environ = dict(RANK='1', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                   MASTER_PORT=free_port())
    monkeypatch.setattr(os, 'environ', {**os.environ, **environ})
    # By default, PyTorch tries for half an hour; a test may take 5 minutes.
    with pytest.raises(JoinError, match=r'rank 1 \(host .*\) cannot meet the '
                       f'other ranks at 127.0.0.1:{environ["MASTER_PORT"]}'):
        open_store(SECOND)
