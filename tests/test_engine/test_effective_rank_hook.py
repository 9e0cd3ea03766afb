import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from host_waits import recorded_waits
from mmengine.config import Config
from ranks import run_ranks
from test_models.test_effective_rank import rank_me
from tiny import MODELS, run_tool, univip_config, watched, write_config
from torch import nn

from univip_mm.engine import EffectiveRankHook
from univip_mm.engine.checkpoint import load_checkpoint
from univip_mm.engine.hooks import effective_rank_hook
from univip_mm.models.effective_rank import effective_rank


def train(folder, name, *options):
    run_tool('train', write_config(folder), '--work-dir', folder / name,
             '--cfg-options', *options)
    return folder / name


def logged_ranks(work_dir):
    """Return the logged lines of the effective ranks, by step."""
    lines = [json.loads(x) for path in work_dir.glob('*/vis_data/scalars.json')
             for x in path.read_text().splitlines()]
    return {x['step']: x for x in lines if 'rank_backbone' in x}


@pytest.fixture
def seen(monkeypatch):
    """Record the first scenes of the measured batches, BGR uint8."""
    seen, features = [], effective_rank_hook._features

    def watch(model, batch):
        seen.append(batch['inputs'][0].clone())
        return features(model, batch)

    monkeypatch.setattr(effective_rank_hook, '_features', watch)
    return seen


def test_logged_ranks_are_of_the_trained_network(coco_folder, seen,
                                                 univip_scope):
    on = train(coco_folder, 'on', 'default_hooks.effective_rank.interval=3')
    found = logged_ranks(on)
    assert set(found) == {3, 6, 8} and len(seen) == 3
    # The same by hand, from the checkpoint after the eighth iteration.
    content = load_checkpoint(str(on / 'epoch_2.pth'))
    model = MODELS.build(Config.fromfile(on / 'tiny.py').model)
    model.load_state_dict(content['state_dict'])
    model.eval()
    rgb = seen[-1].flip(1).float()
    mean, std = torch.tensor([[123.675, 116.28, 103.53],
                              [58.395, 57.12, 57.375]]).view(2, 1, 3, 1, 1)
    with torch.no_grad():
        maps = model.backbone((rgb - mean) / std)
        projections = model.neck(maps)[0]
    for name, x in (('rank_backbone', maps[-1].mean((2, 3))),
                    ('rank_projection', projections)):
        assert found[8][name] == pytest.approx(
            rank_me(x.numpy()), abs=2e-3)
    log = next(on.glob('*/*.log')).read_text()
    assert 'effective ranks of 2 images after iteration 8: rank_back' in log
    # The training has the same bits without the hook.
    off = train(coco_folder, 'off',
                'default_hooks.effective_rank.num_images=0')
    assert logged_ranks(off) == {} and watched(on) == watched(off)
    without = load_checkpoint(str(off / 'epoch_2.pth'))
    for name, value in content['state_dict'].items():
        assert torch.equal(value, without['state_dict'][name]), name
    hubs = [x['message_hub']['log_scalars'] for x in (content, without)]
    assert set(hubs[0]) == set(hubs[1])


def runner_of(length=231, max_iters=10**6, batch_size=512, done=0):
    return SimpleNamespace(
        iter=done, max_iters=max_iters,
        model=nn.ModuleDict(dict(target_net=nn.Linear(1, 1))),
        logger=logging.getLogger('ranks'),
        train_dataloader=type('Loader', (), dict(
            batch_size=batch_size, __len__=lambda self: length))())


@pytest.mark.parametrize('options, runner, first, last', [
    # COCO: once per epoch, the last two batches.
    ({}, runner_of(), 230, 231),
    ({}, runner_of(done=231), 461, 462),
    ({}, runner_of(done=462 + 230), 693, 693),  # resumed late: what is left
    # A short epoch: an eighth of the iterations at most.
    ({}, runner_of(length=3, batch_size=64), 113, 128),
    # A short training: the last iteration, and fewer images.
    ({}, runner_of(length=21, max_iters=42, batch_size=32), 38, 42),
    (dict(interval=10), runner_of(max_iters=15, done=10), 15, 15),
])
def test_measurements_are_planned(options, runner, first, last):
    hook = EffectiveRankHook(**options)
    hook.before_train(runner)
    assert (hook._first, hook._next) == (first, last)


def test_hook_ignores_other_models():
    runner = runner_of()
    runner.model = nn.Linear(1, 1)
    hook = EffectiveRankHook(interval=1)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, None)


@pytest.mark.parametrize('options', [dict(num_images=-1), dict(interval=0)])
def test_hook_refuses_invalid_options(options):
    with pytest.raises(ValueError, match='EffectiveRankHook'):
        EffectiveRankHook(**options)


def test_error_turns_the_hook_off(monkeypatch):
    def fails(model, batch):
        raise MemoryError('no room')

    monkeypatch.setattr(effective_rank_hook, '_features', fails)
    texts, runner = [], runner_of(length=4, max_iters=8)
    runner.logger = SimpleNamespace(warning=texts.append)
    hook = EffectiveRankHook(interval=2)
    for runner.iter in range(8):
        if runner.iter == 0:
            hook.before_train(runner)
        hook.after_train_iter(runner, 0, {})
    assert texts == ['no effective ranks: MemoryError: no room']


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MODELS.build(univip_config(2, 8)).train()


def test_features_change_nothing_and_do_not_wait(model, univip_scope):
    model.backbone.bn1.eval()  # a frozen layer stays frozen
    before = {name: x.clone() for name, x in model.state_dict().items()}
    modes = [x.training for x in model.modules()]
    scenes = torch.randint(0, 256, (3, 3, 32, 32)).byte()
    state = torch.get_rng_state()
    with recorded_waits() as waits:
        pooled, projection = effective_rank_hook._features(
            model, dict(inputs=[scenes, scenes, scenes], data_samples=None))
    assert not waits
    assert pooled.shape == (3, 64) and projection.shape == (3, 8)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [x.training for x in model.modules()]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def measure(rank):
    """Measure with five images on rank 0, and four on rank 1."""
    scalars, texts = [], []
    runner = runner_of(batch_size=5)
    runner.logger = SimpleNamespace(info=texts.append, warning=texts.append)
    runner.visualizer = SimpleNamespace(
        add_scalars=lambda values, step: scalars.append((values, step)))
    hook = EffectiveRankHook(num_images=1000)
    rng = np.random.default_rng(0)
    parts = torch.from_numpy(rng.normal(size=(2, 5, 6))).float()
    hook._features = [[parts[rank][:5 - rank]]]
    hook._measure(runner, 7)
    hook._error = 'E: of rank 1' if rank else ''
    hook._measure(runner, 8)
    return scalars, texts, hook._is_off, effective_rank(
        parts[:, :4].flatten(0, 1))


def test_ranks_join_their_features(tmp_path):
    (scalars, texts, off, expected), other = run_ranks(measure, tmp_path)
    assert scalars == [(dict(rank_backbone=round(expected, 3)), 7)]
    assert texts[1] == 'no effective ranks: another rank has failed' and off
    assert other[:3] == ([], ['no effective ranks: E: of rank 1'], True)
