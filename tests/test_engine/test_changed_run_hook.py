"""The hook that adapts a checkpoint to the settings of the run."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner.priority import get_priority
from ranks import run_ranks
from tiny import error_of, write_config

from univip_mm.engine import ChangedRunHook, SafeResumeHook
from univip_mm.engine.changed_run import ChangedRunError, NothingToDoError
from univip_mm.engine.hooks import changed_run_hook


@pytest.fixture
def runner():
    """Return the parts of a Runner that the hook uses."""
    lines = []
    return SimpleNamespace(
        _resume=True, _load_from='a\n.pth', lines=lines,
        model=torch.nn.Linear(2, 2),
        logger=SimpleNamespace(warning=lines.append))


def test_hook_runs_after_safe_resume_hook():
    assert get_priority(SafeResumeHook.priority) < get_priority(
        ChangedRunHook.priority)


def test_record_is_computed_once(runner, monkeypatch):
    """The digest of a long list of images takes time."""
    calls = []
    monkeypatch.setattr(changed_run_hook, 'record_run', lambda runner: (
        calls.append(runner) or SimpleNamespace(_asdict=lambda: dict(a=1))))
    hook = ChangedRunHook()
    for _ in range(2):
        checkpoint = dict(meta={})
        hook.before_save_checkpoint(runner, checkpoint)
        assert checkpoint['meta']['run'] == dict(a=1)
    assert len(calls) == 1


def test_hook_refuses_other_runners(runner):
    with pytest.raises(ChangedRunError, match='runner_type is SimpleNames'):
        ChangedRunHook().before_run(runner)


def test_tool_refuses_flexible_runner(coco_folder):
    assert error_of('train', write_config(coco_folder), '--cfg-options',
                    'runner_type=FlexibleRunner') == (
        "error: runner_type is 'FlexibleRunner', but only Runner and its "
        'subclasses are supported: leave runner_type out')


def test_loaded_weights_are_counted(runner):
    runner._resume = False
    hook = ChangedRunHook()
    hook.after_load_checkpoint(runner, dict(
        state_dict=runner.model.state_dict()))
    assert not runner.lines
    hook.after_load_checkpoint(runner, dict(weight=torch.ones(2, 2)))
    assert runner.lines == [
        '1 of 2 weights of the model are in the checkpoint; the others keep '
        'their initial values']


@pytest.mark.parametrize('content', [
    {}, dict(meta=3), dict(meta=dict(epoch=1, iter=-1), state_dict={},
                           message_hub={})])
def test_resume_of_another_file_is_refused(runner, content):
    """The host's own tool does not check the file before."""
    with pytest.raises(ChangedRunError, match=r"from 'a\\n.pth': not a train"):
        ChangedRunHook().after_load_checkpoint(runner, content)


def test_all_ranks_stop_if_one_is_refused(tmp_path, runner, monkeypatch):
    def load(rank):
        def adapt(runner, checkpoint):
            if rank == 1:
                raise ValueError('wrong')

        monkeypatch.setattr(changed_run_hook, 'adapt_checkpoint', adapt)
        ChangedRunHook().after_load_checkpoint(runner, {})

    for text in run_ranks(load, tmp_path):
        assert text.startswith('ChangedRunError: on rank 1 (')
        assert "cannot resume from 'a\\n.pth': wrong; or train anew" in text


def test_all_ranks_end_if_nothing_is_to_do(tmp_path, runner, monkeypatch):
    def finish(runner, checkpoint):
        raise NothingToDoError(0)

    monkeypatch.setattr(changed_run_hook, 'adapt_checkpoint', finish)
    assert run_ranks(
        lambda rank: ChangedRunHook().after_load_checkpoint(runner, {}),
        tmp_path) == ['NothingToDoError: 0'] * 2
