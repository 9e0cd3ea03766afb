import signal
import time
import types

import pytest
import torch

from univip_mm.engine.hooks import preemption_hook
from univip_mm.engine.hooks.preemption_hook import PreemptionHook


@pytest.fixture
def calls(monkeypatch):
    """Record the calls that concern other processes, in their order."""
    calls = []
    for name in ('save_checkpoint_atomically', 'barrier', 'stop_heartbeat',
                 'die_with_parent'):
        monkeypatch.setattr(
            preemption_hook, name, lambda *args, _name=name, **kwargs:
            calls.append((_name, *args[:1])))
    return calls


class Runner:
    """Runner of a training that got SIGTERM."""
    iter, work_dir, train_dataloader = 4, '', [None] * 8

    class logger:
        warning = print


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock; the time is in a list."""
    now = [100.]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    return now


@pytest.fixture
def hook():
    """Return a hook in a training; SIGTERM would raise ZeroDivisionError."""
    before = signal.signal(signal.SIGTERM, lambda *_: 1 / 0)
    hook = PreemptionHook()
    hook.before_train(Runner)
    yield hook
    signal.signal(signal.SIGTERM, before)


def test_preemption_waits_until_rank_0_has_saved(calls, hook):
    hook.after_train_iter(Runner, 3)
    assert calls == []
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as e:
        hook.after_train_iter(Runner, 4)
    assert e.value.code == 143
    assert [name for name, *_ in calls] == [
        'save_checkpoint_atomically', 'barrier', 'stop_heartbeat']


def test_preemption_ignores_a_repeated_signal(calls, hook, clock):
    for seconds in (0, 0.01, 4.9):
        clock[0] = 100 + seconds
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        hook.after_train_iter(Runner, 4)
    assert calls[0][0] == 'save_checkpoint_atomically'


def test_preemption_ends_at_a_later_signal(calls, hook, clock):
    signal.raise_signal(signal.SIGTERM)
    clock[0] += 5.1
    with pytest.raises(ZeroDivisionError):
        signal.raise_signal(signal.SIGTERM)
    assert calls == []


@pytest.mark.parametrize('device, iterations', [
    ('cpu', [0, 1, 2, 3, 4]), ('meta', [3])])
def test_preemption_asks_other_ranks(monkeypatch, device, iterations):
    """The check is free without a GPU, whose place "meta" takes here."""
    asked = []
    monkeypatch.setattr(preemption_hook, 'get_world_size', lambda: 2)
    monkeypatch.setattr(preemption_hook, 'get_comm_device',
                        lambda: torch.device(device))
    monkeypatch.setattr(preemption_hook, 'all_reduce',
                        lambda flag, op: asked.append(runner.iter))
    monkeypatch.setattr(preemption_hook, 'bool', lambda flag: False,
                        raising=False)
    hook = PreemptionHook(interval=4)
    for i in range(5):
        runner = types.SimpleNamespace(iter=i)
        hook.after_train_iter(runner, i)
    assert asked == iterations


def test_loader_worker_ends_with_its_rank(calls, monkeypatch):
    monkeypatch.setattr(preemption_hook.signal, 'signal', lambda *_: None)
    preemption_hook._start_worker(
        lambda worker: calls.append(('of the config', worker)), None, 77, 3)
    assert calls == [('die_with_parent', 77), ('of the config', 3)]
