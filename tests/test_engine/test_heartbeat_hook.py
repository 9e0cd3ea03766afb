import pytest
from tiny import CONFIGS

from univip_mm.engine.hooks import heartbeat_hook, preemption_hook
from univip_mm.engine.hooks.heartbeat_hook import HeartbeatHook
from univip_mm.engine.hooks.preemption_hook import PreemptionHook


@pytest.fixture
def calls(monkeypatch):
    """Record the calls that concern other ranks, in their order."""
    calls = []
    for module, name in (
            (heartbeat_hook, 'start_heartbeat'),
            (heartbeat_hook, 'stop_heartbeat'),
            (preemption_hook, 'save_checkpoint_atomically'),
            (preemption_hook, 'barrier'), (preemption_hook, 'stop_heartbeat'),
            (preemption_hook, 'die_with_parent')):
        monkeypatch.setattr(module, name, lambda *args, _name=name, **kwargs:
                            calls.append((_name, *args[:1])))
    return calls


def test_heartbeat_hook_watches_the_run(calls):
    hook = HeartbeatHook(7)
    hook.before_run(None)
    hook.after_run(None)
    assert calls == [('start_heartbeat', 7), ('stop_heartbeat', )]


def test_heartbeat_hook_refuses_negative_limit():
    with pytest.raises(ValueError, match='limit is -1, but must be positive'):
        HeartbeatHook(-1)


def test_all_configs_have_heartbeat_and_timeout():
    from mmengine.config import Config
    for path in CONFIGS.glob('univip_*.py'):
        cfg = Config.fromfile(path)
        assert cfg.default_hooks.heartbeat == dict(
            type='HeartbeatHook', limit=60)
        assert cfg.env_cfg.dist_cfg.timeout == 600


class Runner:
    """Runner of a training that got SIGTERM."""
    iter, work_dir, train_dataloader = 4, '', [None] * 8

    class logger:
        warning = print


def test_preemption_waits_until_rank_0_has_saved(calls):
    hook = PreemptionHook()
    hook._got_signal = True
    with pytest.raises(SystemExit) as e:
        hook.after_train_iter(Runner, 4)
    assert e.value.code == 143
    assert [name for name, *_ in calls] == [
        'save_checkpoint_atomically', 'barrier', 'stop_heartbeat']


def test_loader_worker_ends_with_its_rank(calls, monkeypatch):
    monkeypatch.setattr(preemption_hook.signal, 'signal', lambda *_: None)
    preemption_hook._start_worker(
        lambda worker: calls.append(('of the config', worker)), None, 77, 3)
    assert calls == [('die_with_parent', 77), ('of the config', 3)]
