import pytest
from tiny import CONFIGS

from univip_mm.engine.hooks import heartbeat_hook
from univip_mm.engine.hooks.heartbeat_hook import HeartbeatHook


@pytest.fixture
def calls(monkeypatch):
    """Record the calls that concern other ranks, in their order."""
    calls = []
    for name in ('start_heartbeat', 'stop_heartbeat'):
        monkeypatch.setattr(heartbeat_hook, name, lambda *args, _name=name:
                            calls.append((_name, *args)))
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
