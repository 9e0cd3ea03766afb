"""Interrupted trainings that are resumed."""
import logging
import os
import signal
import subprocess
import time
import types

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import ZeroRedundancyOptimizer
from mmengine.runner.checkpoint import save_checkpoint as mmengine_save
from ranks import run_ranks
from tiny import (
    CONFIGS,
    PYTHONPATH,
    ROOT,
    Stopped,
    free_port,
    run_tool,
    watched,
    write_config,
)
from warm_python import warm_python

from univip_mm.engine.checkpoint import load_checkpoint
from univip_mm.engine.hooks.safe_checkpoint_hook import (
    SafeCheckpointHook,
    _drop_foreign_paths,
    save_checkpoint_atomically,
)

DROPOUT = '''
from mmpretrain.models.necks import NonLinearNeck


@MODELS.register_module(force=True)
class NoisyNeck(NonLinearNeck):
    """Neck that uses the generators of PyTorch, NumPy and Python."""

    def forward(self, x):
        noise = random.random() + np.random.rand()
        out, = super().forward(x)
        return torch.nn.functional.dropout(out, 0.3) + 1e-3 * noise,
'''


LAYER_NORM = """
model['backbone'].update(norm_cfg=dict(_delete_=True, type='GN', num_groups=4))
for part in (model['neck'], model['head']['predictor']):
    part['norm_cfg'] = dict(type='LN')
"""


def same(a, b) -> bool:
    """Return True if the contents of two checkpoints are bit-identical."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)
    return a == b


def same_training(a, b) -> bool:
    """Return True if two checkpoints have the same training state."""
    a, b = (load_checkpoint(str(path)) for path in (a, b))
    return all(same(a[part], b[part]) for part in
               ('state_dict', 'optimizer', 'param_schedulers')) and (
                   a['meta']['iter'] == b['meta']['iter'])


@pytest.fixture
def noisy(coco_folder, monkeypatch):
    """Return a function that writes tiny configs with a random neck."""
    (coco_folder / 'noisy_neck.py').write_text(
        'import random\nimport numpy as np\nimport torch\n'
        'from univip_mm.registry import MODELS\n' + DROPOUT)
    monkeypatch.syspath_prepend(str(coco_folder))

    def write(*args, **options):
        path = write_config(coco_folder, *args, **options)
        text = path.read_text().replace("'tiny']", "'tiny', 'noisy_neck']")
        path.write_text(text.replace(
            'neck=dict(in_channels=64', "neck=dict(type='NoisyNeck', "
            'in_channels=64'))
        return path

    return write


def test_resume_is_bit_identical(coco_folder, noisy):
    whole, parts = coco_folder / 'whole', coco_folder / 'parts'
    config = noisy()
    options = ['--cfg-options', 'train_dataloader.num_workers=2']
    run_tool('train', config, '--work-dir', whole, *options)
    with pytest.raises(Stopped):
        run_tool('train', noisy('stopped.py', 1), '--work-dir', parts)
    torch.rand(7), np.random.rand(7)  # a new process has another random state
    run_tool('train', config, '--work-dir', parts, '--resume')
    assert [x['loss'] for x in watched(whole)] == [
        x['loss'] for x in watched(parts)]
    assert same_training(whole / 'epoch_2.pth', parts / 'epoch_2.pth')


def test_resume_keeps_random_seed_of_runner(coco_folder):
    whole, parts = coco_folder / 'whole', coco_folder / 'parts'
    options = ['--cfg-options', 'randomness.seed=None']
    config = write_config(coco_folder)
    run_tool('train', config, '--work-dir', whole, *options)
    # Resume from the end of the first epoch.
    run_tool('train', config, '--work-dir', parts, '--resume',
             whole / 'epoch_1.pth', *options)
    assert same_training(whole / 'epoch_2.pth', parts / 'epoch_2.pth')


def train(coco_folder, config, work_dir, processes=1, options=(), **more):
    """Start tools/train.py in new processes."""
    tool = [str(ROOT / 'tools/train.py'), str(config), '--work-dir',
            str(work_dir)]
    command = [warm_python(), *tool]
    if processes > 1:
        command = [warm_python(), '-m', 'torch.distributed.run',
                   f'--nproc-per-node={processes}',
                   f'--master-port={free_port()}', *tool, '--launcher',
                   'pytorch']
    environment = dict(
        os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
        PYTHONPATH=f'{PYTHONPATH}{os.pathsep}{coco_folder}')
    return subprocess.Popen(
        [*command, *options], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)


def test_two_processes_resume_bit_identical(coco_folder, noisy):
    whole, parts = coco_folder / 'whole', coco_folder / 'parts'
    config, stopped = noisy(), noisy('stopped.py', 1)
    first = [train(coco_folder, config, whole, 2),
             train(coco_folder, stopped, parts, 2)]
    texts = [process.communicate(timeout=200)[0] for process in first]
    assert [x.returncode == 0 for x in first] == [True, False], texts
    again = train(coco_folder, config, parts, 2, ['--resume'])
    text = again.communicate(timeout=200)[0]
    assert again.returncode == 0, text
    assert same_training(whole / 'epoch_2.pth', parts / 'epoch_2.pth')


@pytest.mark.parametrize('processes', [1, 2])
def test_sigterm_saves_and_resumes_at_next_batch(coco_folder, processes):
    whole, parts = coco_folder / 'whole', coco_folder / 'parts'
    config, slow = write_config(coco_folder), write_config(
        coco_folder, 'slow.py', seconds=0.5)
    for path in (config, slow):
        path.write_text(path.read_text() + LAYER_NORM)
    options = ['--cfg-options', 'train_dataloader.batch_size=1',
               'default_hooks.preemption.interval=1']
    undisturbed = train(coco_folder, config, whole, processes, options)
    process = train(coco_folder, slow, parts, processes, [
        *options, 'train_dataloader.num_workers=1',
        'train_dataloader.persistent_workers=True'], start_new_session=True)
    lines = parts / 'rank0.jsonl'
    deadline = time.time() + 120
    while not lines.exists() and process.poll() is None:
        assert time.time() < deadline
        time.sleep(0.05)
    for _ in range(2):  # some launchers send it twice
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    text = process.communicate(timeout=120)[0]
    assert process.returncode != 0 and "got SIGTERM: saved '" in text
    done = len(watched(parts))
    assert 0 < done < 8 // processes
    again = train(coco_folder, config, parts, processes,
                  ['--resume', *options])
    text = again.communicate(timeout=200)[0]
    assert again.returncode == 0, text
    assert f'resumed in epoch 1 after iteration {done} of ' in text
    assert undisturbed.wait(200) == 0
    assert [x['iter'] for x in watched(parts)] == list(
        range(16 // processes))
    assert same_training(whole / 'epoch_2.pth', parts / 'epoch_2.pth')


def test_full_disk_keeps_last_checkpoint(coco_folder, tmp_path):
    """The kernel limits the file size after the first checkpoint."""
    work_dir = coco_folder / 'out'
    config = write_config(coco_folder, full_disk_after_epoch=1)
    process = train(coco_folder, config, work_dir, options=[
        '--cfg-options', 'train_cfg.max_epochs=3',
        'default_hooks.checkpoint.max_keep_ckpts=1'])
    text = process.communicate(timeout=200)[0]
    assert process.returncode != 0  # the last checkpoint failed
    assert 'the training continues' in text and 'File too large' in text
    assert [x['epoch'] for x in watched(work_dir)] == [0] * 4 + [1] * 4 + (
        [2] * 4)
    assert [x.name for x in work_dir.glob('*.pth*')] == ['epoch_1.pth']
    assert load_checkpoint(str(work_dir / 'epoch_1.pth'))['meta']['epoch'] == 1
    assert (work_dir / 'last_checkpoint').read_text().endswith('epoch_1.pth')


def test_max_keep_ckpts_removes_older_checkpoints(coco_folder):
    work_dir = coco_folder / 'out'
    run_tool('train', write_config(coco_folder), '--work-dir', work_dir,
             '--cfg-options', 'train_cfg.max_epochs=4',
             'default_hooks.checkpoint.max_keep_ckpts=2')
    assert sorted(x.name for x in work_dir.glob('*.pth*')) == [
        'epoch_3.pth', 'epoch_4.pth']


def test_resume_skips_truncated_checkpoint(coco_folder):
    work_dir = coco_folder / 'out'
    config = write_config(coco_folder)
    run_tool('train', config, '--work-dir', work_dir)
    os.truncate(work_dir / 'epoch_2.pth', 10_000)
    run_tool('train', config, '--work-dir', work_dir, '--resume')
    assert [x['iter'] for x in watched(work_dir)][8:] == [4, 5, 6, 7]


@pytest.fixture
def save(tmp_path):
    """Return a function that saves ``epoch_1.pth`` as the Runner does."""

    class Runner:
        work_dir = str(tmp_path)
        message_hub = MessageHub('save')
        optim_wrapper = None

        def save_checkpoint(self, folder, name, meta, by_epoch, backend_args):
            mmengine_save(meta, os.path.join(folder, name),
                          backend_args=backend_args)

    return lambda: save_checkpoint_atomically(
        Runner(), str(tmp_path), 'epoch_1.pth', True, dict(epoch=1))


def test_save_checkpoint_does_not_follow_links(tmp_path, save):
    target = tmp_path / 'precious'
    target.write_text('mine')
    for name in ('epoch_1.pth', 'epoch_1.pth.part', 'last_checkpoint'):
        (tmp_path / name).symlink_to(target)
    path = save()
    assert target.read_text() == 'mine'
    assert load_checkpoint(path) == dict(epoch=1)
    assert (tmp_path / 'last_checkpoint').read_text() == path
    assert not list(tmp_path.glob('.*'))


def test_save_checkpoint_collects_parts_of_optimizer(tmp_path):
    """Each rank has a part of the state, and rank 0 writes all of it."""

    def save(rank):
        layer = torch.nn.Linear(2, 2)
        optimizer = ZeroRedundancyOptimizer(
            layer.parameters(), 'SGD', lr=0.1, momentum=0.9)
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        found = []
        save_checkpoint_atomically(types.SimpleNamespace(
            work_dir=str(tmp_path), message_hub=MessageHub('parts'),
            optim_wrapper=types.SimpleNamespace(optimizer=optimizer),
            save_checkpoint=lambda *_, **__: rank or found.append(
                len(optimizer.state_dict()['state']))),
            str(tmp_path), 'a.pth', True, {})
        return found

    assert run_ranks(save, tmp_path) == [[2], []]


@pytest.mark.parametrize('name', ['epoch_1.pth', 'last_checkpoint'])
def test_save_checkpoint_refuses_pipes_and_devices(tmp_path, save, name):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / name).symlink_to(tmp_path / 'pipe')
    with pytest.raises(OSError, match=f'{name}.* is not a regular file'):
        save()


def test_checkpoint_names_no_file_to_delete(tmp_path):
    paths = [tmp_path / x for x in ('a.pth', 'best_.txt', 'best_1.pth',
                                    'other/best_1.pth')]
    (tmp_path / 'other').mkdir()
    for path in paths:
        path.write_text('')
    info = {f'best_ckpt_{i}': str(x) for i, x in enumerate([*paths, tmp_path])}
    info.update(best_ckpt=3, keep_ckpt_ids=['../a'], iter=4)
    _drop_foreign_paths(info, str(tmp_path))
    assert info == dict(best_ckpt_2=str(paths[2]), iter=4)
    info = dict(keep_ckpt_ids=[1, 2])
    _drop_foreign_paths(info, str(tmp_path))
    assert info == dict(keep_ckpt_ids=[1, 2])


def test_checkpoint_hook_uses_safe_paths(tmp_path):
    hub = MessageHub('paths')
    hub.update_info('best_ckpt', str(tmp_path))
    hook = SafeCheckpointHook(interval=1)
    hook.before_train(types.SimpleNamespace(
        work_dir=str(tmp_path), message_hub=hub,
        logger=logging.getLogger('paths')))
    assert 'best_ckpt' not in hub.runtime_info
    # Also for the best checkpoint, which MMEngine saves.
    assert hook.backend_args == dict(backend='univip_mm')


def test_training_removes_files_of_killed_runs(coco_folder):
    work_dir = coco_folder / 'out'
    work_dir.mkdir()
    parts = [work_dir / x for x in ('.epoch_1.pth.0a1b2c3d.part',
                                    '.last_checkpoint.0a1b2c3d.part')]
    others = [work_dir / x for x in ('mine.part', '.notes.part')]
    for path in parts + others:
        path.write_text('part')
    run_tool('train', write_config(coco_folder), '--work-dir', work_dir,
             '--cfg-options', 'train_cfg.max_epochs=1')
    assert not any(x.exists() for x in parts)
    assert all(x.exists() for x in others)


def weights(path) -> torch.Tensor:
    """Return all weights of the model as one vector."""
    state = load_checkpoint(str(path))['state_dict']
    return torch.cat([x.double().flatten() for x in state.values()])


def test_two_processes_equal_one_with_double_batch(coco_folder):
    """Without batch statistics, the weights after SGD are equal."""
    config = write_config(coco_folder)
    config.write_text(config.read_text() + LAYER_NORM)
    options = ['--cfg-options', 'train_cfg.max_epochs=1',
               'train_dataloader.batch_size=%d']
    runs = {}
    for processes, batch in ((1, 4), (2, 2)):
        runs[processes] = train(
            coco_folder, config, coco_folder / str(processes), processes,
            [*options[:-1], options[-1] % batch])
    for process in runs.values():
        text = process.communicate(timeout=200)[0]
        assert process.returncode == 0, text
    one, two = (weights(coco_folder / name / 'epoch_1.pth')
                for name in '12')
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    start = watched(coco_folder / '1')[0]['parameters']
    assert watched(coco_folder / '2')[0]['parameters'] == pytest.approx(
        start, abs=1e-3)


def test_target_moves_once_per_accumulated_step(coco_folder):
    folders = {}
    for count, batch in ((1, 4), (2, 2)):
        folders[count] = coco_folder / str(count)
        config = write_config(coco_folder)
        config.write_text(config.read_text() + LAYER_NORM)
        run_tool('train', config, '--work-dir', folders[count],
                 '--cfg-options',
                 f'train_dataloader.batch_size={batch}',
                 f'optim_wrapper.accumulative_counts={count}',
                 'param_scheduler=[]')
    ends = [load_checkpoint(str(folder / 'epoch_2.pth'))['state_dict']
            for folder in folders.values()]
    # Four steps; the target moves before each of them.
    assert [int(x['target_net.steps']) for x in ends] == [4, 4]
    for name, value in ends[0].items():
        torch.testing.assert_close(
            value, ends[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_dead_rank_ends_other_ranks(coco_folder):
    config = write_config(coco_folder, dies_at_iter=2)
    start = time.time()
    process = train(coco_folder, config, coco_folder / 'out', 2)
    text = process.communicate(timeout=200)[0]
    assert process.returncode != 0
    assert 'a rank that dies' in text
    died = float((coco_folder / 'out/died').read_text())
    assert start < died and time.time() - died < 60


def test_all_configs_have_default_hooks():
    from mmengine.config import Config
    for path in CONFIGS.glob('univip_*.py'):
        hooks = Config.fromfile(path).default_hooks
        assert {hook.type for hook in hooks.values()} >= {
            'IterSeedHook', 'PreemptionHook', 'SafeCheckpointHook',
            'SafeResumeHook', 'TargetUpdateHook', 'NonFiniteHook',
            'SkippedImagesHook'}
