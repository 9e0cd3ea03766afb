"""The hook writes the same log as MMEngine's `RuntimeInfoHook`."""
import itertools
import json
import types

import numpy as np
import pytest
import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from tiny import run_tool, write_config

from univip_mm.engine import AsyncRuntimeInfoHook
from univip_mm.engine.checkpoint import load_checkpoint
from univip_mm.engine.hooks import async_runtime_info_hook
from univip_mm.engine.plain_log import restore_log

NAMES = itertools.count()


def logged(folder):
    """Return the lines of the log and the order of their keys."""
    path, = folder.glob('*/vis_data/scalars.json')
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    return [[(key, value) for key, value in line.items() if 'time' not in key]
            for line in lines if 'loss' in line]


def scalars(path):
    """Return the log values in a checkpoint, in order."""
    checkpoint = load_checkpoint(str(path))
    restore_log(checkpoint)
    return [(key, [x.tolist() for x in value.data]) for key, value in
            checkpoint['message_hub']['log_scalars'].items()
            if 'time' not in key]


def test_hook_gives_log_and_checkpoints_of_mmengine(coco_folder):
    base = write_config(coco_folder)
    for kind in ('RuntimeInfoHook', 'AsyncRuntimeInfoHook'):
        config = coco_folder / f'{kind}.py'
        # Iteration 3 of 4 is logged, and 2 and 4 are saved.
        config.write_text(
            f"_base_ = './{base.name}'\ndefault_hooks = dict(\n"
            f"    runtime_info=dict(type='{kind}'),\n"
            '    logger=dict(interval=3),\n'
            '    checkpoint=dict(by_epoch=False, interval=2))\n')
        run_tool('train', config, '--work-dir', coco_folder / kind)
    theirs, ours = (coco_folder / x for x in (
        'RuntimeInfoHook', 'AsyncRuntimeInfoHook'))
    assert len(logged(ours)) == 2 and logged(ours) == logged(theirs)
    for name in ('iter_4.pth', 'iter_6.pth'):
        assert scalars(ours / name) == scalars(theirs / name)


@pytest.fixture
def train():
    """Return a function that passes outputs to a hook; it returns the hub."""

    def run(kind, *outputs, is_graph=False, length=100):
        runner = types.SimpleNamespace(
            message_hub=MessageHub.get_instance(f'test{next(NAMES)}'),
            epoch=0, iter=0, max_epochs=1, max_iters=100, hooks=[],
            train_dataloader=types.SimpleNamespace(dataset=None),
            save_checkpoint=lambda: None)
        hook = kind()
        hook.before_train(runner)
        runner.hooks.append(LoggerHook(interval=length))
        runner.train_dataloader = range(length)
        for i, values in enumerate(outputs):
            hook.after_train_iter(runner, i, outputs=values)
            if is_graph:  # the next replay overwrites the outputs
                for x in values.values():
                    x.fill_(0)
        return runner, hook

    return run


def history(runner):
    return {key: [type(y)(y) for y in x.data[0]]
            for key, x in runner.message_hub.log_scalars.items()}


def test_hook_keeps_types_and_order_of_values(train):
    outputs = [dict(
        a=torch.tensor([1 / 3 + i]), b=i, c=torch.tensor(i),
        d=torch.tensor(0.1, dtype=torch.bfloat16), e=np.float32(i),
        **(dict(new=torch.tensor(2.)) if i == 2 else {})) for i in range(4)]
    runners = []
    for kind in (RuntimeInfoHook, AsyncRuntimeInfoHook):
        runner, _ = train(kind, *outputs)
        runner.save_checkpoint()
        runners.append(runner)
    theirs, ours = map(history, runners)
    assert ours == theirs and list(ours) == list(theirs)


def test_hook_reads_only_when_values_are_logged(train):
    outputs = [dict(loss=torch.tensor(float(i))) for i in range(5)]
    runner, _ = train(AsyncRuntimeInfoHook, *outputs, length=4)
    assert history(runner) == {'train/loss': [0., 1., 2., 3.]}
    runner, hook = train(AsyncRuntimeInfoHook, *outputs)
    assert history(runner) == {'train/loss': [0.]}
    hook.after_train_epoch(runner)
    assert history(runner) == {'train/loss': [0., 1., 2., 3., 4.]}


def test_hook_copies_values_that_are_overwritten(train):
    outputs = [dict(loss=torch.tensor(float(i))) for i in range(1, 4)]
    runner, _ = train(AsyncRuntimeInfoHook, *outputs, is_graph=True, length=3)
    assert history(runner) == {'train/loss': [1., 2., 3.]}


def test_hook_limits_number_of_pending_values(train, monkeypatch):
    monkeypatch.setattr(async_runtime_info_hook, 'MAX_PENDING', 2)
    runner, _ = train(AsyncRuntimeInfoHook, *[
        dict(loss=torch.tensor(float(i))) for i in range(4)])
    assert history(runner) == {'train/loss': [0., 1., 2.]}
