"""Trainings that are resumed with other settings.

The oracle is a training that had the new settings from its start.
"""
import re
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from test_resume import same_training, train
from tiny import (
    WatchTraining,
    error_of,
    make_coco_folder,
    run_tool,
    watched,
    write_config,
)

from univip_mm.engine.changed_run import Position, _convert_optimizer
from univip_mm.engine.checkpoint import load_checkpoint
from univip_mm.engine.run_record import RunRecord

# Checkpoints after each iteration, with our schedules by iteration.
EACH_ITER = ['default_hooks.checkpoint.by_epoch=False',
             'default_hooks.checkpoint.interval=1',
             'default_hooks.checkpoint.max_keep_ckpts=-1']
BATCH_4 = ['train_dataloader.batch_size=4']
LONGER = ['train_cfg.max_epochs=4', 'param_scheduler.1.end=4']
BY_EPOCH = [f'param_scheduler.{i}.convert_to_iter_based=False' for i in '01']
BY_ITER = [
    'train_cfg._delete_=True', 'train_cfg.type=IterBasedTrainLoop',
    'train_dataloader.sampler.type=InfiniteSampler',
    'param_scheduler.0.by_epoch=False', 'param_scheduler.1.by_epoch=False',
    'param_scheduler.0.convert_to_iter_based=False', 'param_scheduler.0.end=2',
    'param_scheduler.1.convert_to_iter_based=False',
    'param_scheduler.1.begin=2', *EACH_ITER]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Write a data set of 8 images and a config of two epochs."""
    folder = make_coco_folder(tmp_path_factory.mktemp('changed') / 'data')
    write_config(folder)
    return folder


@pytest.fixture(scope='module')
def trained(folder):
    """Return a function that trains once per list of options.

    The result is the work dir, which several tests read.
    """
    done = {}

    def trained(*options):
        if options not in done:
            done[options] = folder / f'trained{len(done)}'
            run_tool('train', folder / 'tiny.py', '--work-dir', done[options],
                     *(['--cfg-options', *options] if options else []))
        return done[options]

    return trained


@pytest.fixture
def resume(folder, tmp_path):
    """Return a function that resumes a checkpoint in another work dir."""

    def resume(path, *options):
        run_tool('train', folder / 'tiny.py', '--work-dir', tmp_path,
                 '--resume', path,
                 *(['--cfg-options', *options] if options else []))
        return tmp_path

    return resume


def without_record(path, tmp_path):
    """Return a copy of a checkpoint as stock MMEngine writes it."""
    content = torch.load(path, weights_only=True)
    del content['meta']['run']
    torch.save(content, tmp_path / 'stock.pth')
    return tmp_path / 'stock.pth'


def steps(work_dir, name):
    """Return the number of target updates in a checkpoint."""
    content = load_checkpoint(str(work_dir / name))
    return int(content['state_dict']['target_net.steps'])


def messages(work_dir):
    """Return the warnings in the log of a training."""
    log, = work_dir.glob('*/*.log')
    return [line.split(' - WARNING - ')[1] for line in
            log.read_text().splitlines() if ' - WARNING - ' in line]


def places(work_dir, first=0):
    """Return epoch, iteration and learning rate of a training."""
    return [(x['epoch'], x['iter'], x['lr']) for x in watched(work_dir)
            if x['iter'] >= first]


def message(work_dir, start='resumed'):
    """Return the only line that says what was changed."""
    line, = (x for x in messages(work_dir) if x.startswith(start))
    return line


@pytest.mark.parametrize('old, new, iteration, first, words', [
    # 4 of 8 images of epoch 2 are used
    (BATCH_4, [], 3, 6, 'epoch 2 goes on after 2 of 4 iterations'),
    # 6 of 8 images are used, 4 fill an iteration
    ([], BATCH_4, 7, 3, 'epoch 2 goes on after 1 of 2 iterations'),
    ([], BATCH_4, 4, 2, 'iteration 4 is now 2; the schedules were rebuilt'),
    ([], LONGER, 7, 7, 'train_cfg.max_epochs 2 -> 4'),
    ([], ['train_dataloader.dataset.indices=6'], 6, 3, 'epoch 2 begins again'),
    ([], ['optim_wrapper.optimizer.lr=0.5'], 6, 6, 'optimizer.lr 0.0125 -> '),
    ([], ['optim_wrapper.accumulative_counts=2'], 6, 6,
     'accumulative_counts missing -> 2'),
    (BY_EPOCH, [*BY_EPOCH, *BATCH_4], 6, 3, 'epoch 2 goes on after 1 of 2'),
    ([*BY_ITER, 'train_cfg.max_iters=8', 'param_scheduler.1.end=8'],
     [*BY_ITER, *BATCH_4, 'train_cfg.max_iters=4', 'param_scheduler.1.end=4'],
     5, 2, 'iteration 5 is now 2; the schedules were rebuilt')],
    ids=['smaller batch', 'larger batch', 'end of epoch', 'more epochs',
         'fewer images', 'learning rate', 'accumulation', 'by epoch',
         'by iteration'])
def test_resume_with_other_settings(trained, resume, old, new, iteration,
                                    first, words):
    whole = trained(*EACH_ITER, *new)
    resumed = resume(trained(*EACH_ITER, *old) / f'iter_{iteration}.pth',
                     *EACH_ITER, *new)
    expected = [x for x in watched(whole) if x['iter'] >= first]
    assert places(resumed) == places(whole, first)
    assert words in message(resumed)
    last = f'iter_{expected[-1]["iter"] + 1}.pth'
    assert steps(resumed, last) == steps(whole, last)
    assert [x['share'] for x in watched(resumed)] == pytest.approx(
        [x['share'] for x in expected], abs=1e-4)


def test_unchanged_resume_is_silent_and_identical(trained, resume):
    whole = trained(*EACH_ITER)
    again = resume(whole / 'iter_7.pth', *EACH_ITER,
                   'train_dataloader.num_workers=1')
    assert same_training(whole / 'iter_8.pth', again / 'iter_8.pth')
    assert not [x for x in messages(again)
                if 'settings' in x or 'rebuilt' in x]


def test_resume_uses_changed_options_of_optimizer(trained, resume):
    resumed = resume(trained(*EACH_ITER) / 'iter_7.pth',
                     'optim_wrapper.optimizer.weight_decay=0.5',
                     'optim_wrapper.optimizer.momentum=0.5')
    assert 'optimizer.weight_decay 0.0001 -> 0.5' in message(resumed)
    group, = load_checkpoint(str(resumed / 'epoch_2.pth'))['optimizer'][
        'param_groups']
    assert group['weight_decay'] == group['momentum'] == 0.5


def test_resume_of_stock_checkpoint_converts_position(
        trained, resume, tmp_path):
    """Without a record, MMEngine's max_epochs and max_iters must do."""
    path = without_record(trained(*EACH_ITER) / 'iter_7.pth', tmp_path)
    resumed = resume(path, *BATCH_4, 'optim_wrapper.optimizer.lr=0.5')
    assert [x['iter'] for x in watched(resumed)] == [2, 3]
    line = message(resumed)
    assert 'without a record of its settings: epoch 2 begins again' in (
        line) and 'the schedules were rebuilt; lr ' in line


def test_stock_checkpoint_keeps_fitting_schedules(trained, resume, tmp_path):
    """Options without a schedule are compared with the stored ones."""
    whole = trained(*EACH_ITER)
    path = without_record(whole / 'iter_5.pth', tmp_path)
    resumed = resume(path, 'optim_wrapper.optimizer.weight_decay=0.5')
    assert places(resumed) == places(whole, 5)
    assert message(resumed).endswith('settings: weight_decay 0.0001 -> 0.5')


def test_schedule_can_be_added_and_removed(trained, resume, tmp_path):
    whole, constant = trained(*EACH_ITER), trained(*EACH_ITER,
                                                   'param_scheduler=None')
    resume(whole / 'iter_6.pth', 'param_scheduler=None')
    assert {x['lr'] for x in watched(tmp_path)} == {0.0125}
    (tmp_path / 'rank0.jsonl').unlink()
    resume(constant / 'iter_6.pth')
    assert places(tmp_path) == places(whole, 6)


@pytest.mark.parametrize('old, new, is_kept', [
    ({}, {}, True), ({'lr': '1'}, {}, True),
    ({'loss_scale': '1.0'}, {}, False),
    ({'dtype': "'bfloat16'"}, {'dtype': "'float16'"}, False)])
def test_loss_scale_of_other_precision_is_not_used(old, new, is_kept):
    """From a scale of 1, float16 would need 32,000 steps to recover."""
    wrapper = OptimWrapper(torch.optim.SGD([torch.zeros(1)], 0.1))
    runner = SimpleNamespace(optim_wrapper=wrapper, param_schedulers=None)
    state = {**wrapper.state_dict(), 'loss_scaler': dict(scale=1.)}
    records = [RunRecord(*[1] * 7, 'SGD', {
        f'optim_wrapper.{k}': v for k, v in x.items()}) for x in (old, new)]
    notes = _convert_optimizer(runner, dict(optimizer=state), *records,
                               Position(1, 4, ''))
    assert ('loss_scaler' in state) == is_kept
    assert ('the loss scale starts anew' in notes) != is_kept


def test_state_of_disabled_scaler_is_not_used():
    """PyTorch's scaler refuses to load an empty state."""
    wrapper = OptimWrapper(torch.optim.SGD([torch.zeros(1)], 0.1))
    wrapper.loss_scaler = SimpleNamespace(state_dict=lambda: dict(scale=2.))
    runner = SimpleNamespace(optim_wrapper=wrapper, param_schedulers=None)
    state = {**wrapper.state_dict(), 'loss_scaler': {}}
    record = RunRecord(*[1] * 7, 'SGD', {})
    for old in (record, None):
        state['loss_scaler'] = {}
        _convert_optimizer(runner, dict(optimizer=state), old, record,
                           Position(1, 4, ''))
        assert 'loss_scaler' not in state


def test_several_optimizers_without_record_are_resumed():
    wrapper = OptimWrapperDict(a=OptimWrapper(
        torch.optim.SGD([torch.zeros(1)], 0.1)))
    runner = SimpleNamespace(optim_wrapper=wrapper)
    new = RunRecord(*[1] * 9)
    assert _convert_optimizer(runner, {}, None, new, None) == []
    with pytest.raises(ValueError, match='several optimizers'):
        _convert_optimizer(runner, {}, new._replace(world_size=2), new, None)


def test_sampler_without_skip_begins_epoch_again(folder, trained, tmp_path):
    options = [*EACH_ITER, 'train_dataloader.sampler.type=DefaultSampler']
    whole = trained(*options)
    for iteration in (6, 4):
        run_tool('train', folder / 'tiny.py', '--work-dir',
                 tmp_path / str(iteration), '--resume',
                 whole / f'iter_{iteration}.pth', '--cfg-options', *options)
        assert places(tmp_path / str(iteration)) == places(whole, 4)
    assert message(tmp_path / '6').startswith(
        'resumed: epoch 2 begins again, because the sampler cannot skip')


def test_sigterm_in_last_iteration_of_epoch(folder, trained, tmp_path,
                                            monkeypatch):
    """The end of the epoch, with its checkpoint, follows after the resume."""
    arguments = [folder / 'tiny.py', '--work-dir', tmp_path, '--resume',
                 '--cfg-options', *BY_EPOCH]
    after_train_iter = WatchTraining.after_train_iter

    def stop(self, runner, *args, **kwargs):
        after_train_iter(self, runner, *args, **kwargs)
        if runner.iter == 3:
            signal.raise_signal(signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(WatchTraining, 'after_train_iter', stop)
        run_tool('train', *arguments)
    signal.signal(signal.SIGTERM, handler)
    run_tool('train', *arguments)
    whole = trained(*BY_EPOCH)
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        assert same_training(whole / name, tmp_path / name)


def test_next_resume_uses_converted_checkpoint(folder, tmp_path):
    """After a larger batch, the latest checkpoint has fewer iterations."""
    for epochs, options in ((2, []), (3, BATCH_4), (4, BATCH_4)):
        run_tool('train', folder / 'tiny.py', '--work-dir', tmp_path,
                 '--resume', '--cfg-options', *options,
                 f'train_cfg.max_epochs={epochs}',
                 f'param_scheduler.1.end={epochs}')
    assert [x['epoch'] for x in watched(tmp_path)] == [
        0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize('options, words', [
    (['train_cfg.max_epochs=1'], 'already trained for 2 of 1 epochs'),
    ([], 'already trained for 2 of 2 epochs'),
    ([*BY_ITER, 'train_cfg.max_iters=3', 'param_scheduler.1.end=3'],
     'already trained for 3 of 3 iterations')])
def test_resume_at_end_has_nothing_to_do(trained, resume, options, words):
    whole, name = (trained(*options), 'iter_3.pth') if len(options) > 1 else (
        trained(), 'epoch_2.pth')
    resumed = resume(whole / name, *options)
    assert f'{words}: nothing to do' in message(resumed, 'already')
    assert not list(resumed.glob('*.pth'))


@pytest.mark.parametrize('options, words', [
    (['model.head.predictor.hid_channels=16'],
     r'head.predictor.fc0.weight is \(32, 16\) in the checkpoint and \(16, 16'
     r'\) in the model, .* and \d+ others\): resume with the config of'),
    (['optim_wrapper.optimizer._delete_=True',
      'optim_wrapper.optimizer.type=AdamW', 'optim_wrapper.optimizer.lr=0.1'],
     'its optimizer is SGD, not AdamW: resume with the same optim_wrapper'),
    (['optim_wrapper.paramwise_cfg.bias_decay_mult=0.'],
     'its optimizer has 1 groups .* resume with the same optim_wrapper.par'),
    ([*BY_ITER, 'train_cfg.max_iters=9', 'param_scheduler.1.end=9'],
     'of a training by epochs, and this is one by iterations: .*train_cfg')],
    ids=['model', 'optimizer', 'groups', 'loop'])
@pytest.mark.parametrize('recorded', [True, False])
def test_resume_refuses_what_cannot_be_converted(
        folder, trained, tmp_path, options, words, recorded):
    path = trained() / 'epoch_1.pth'
    if not recorded:
        path = without_record(path, tmp_path)
        words = words.replace('is SGD', 'is another one')
    error = error_of('train', folder / 'tiny.py', '--work-dir',
                     tmp_path / 'out', '--resume', path, '--cfg-options',
                     *options)
    assert error.startswith(f"error: cannot resume from '{path}': it")
    assert re.search(words, error)
    assert error.endswith('with load_from and without resume')


def test_two_processes_resume_run_of_one(folder, trained, tmp_path):
    """The total batch doubles, as with a batch size of 4."""
    path = trained(*EACH_ITER) / 'iter_7.pth'
    process = train(folder, folder / 'tiny.py', tmp_path, 2, [
        '--resume', str(path), '--cfg-options', *EACH_ITER,
        'train_dataloader.num_workers=1'])
    text = process.communicate(timeout=200)[0]
    assert process.returncode == 0, text
    whole = trained(*EACH_ITER, *BATCH_4)
    assert places(tmp_path) == places(whole, 3)
    assert 'number of processes 1 -> 2' in message(tmp_path)
    assert steps(tmp_path, 'iter_4.pth') == steps(whole, 'iter_4.pth')


def test_auto_scale_lr_of_a_resume_is_used(folder, trained, tmp_path):
    run_tool('train', folder / 'tiny.py', '--work-dir', tmp_path,
             '--auto-scale-lr', '--resume', trained() / 'epoch_1.pth')
    assert [x['lr'] for x in watched(tmp_path)] == pytest.approx([
        x['lr'] * 2 / 16 for x in watched(trained())][4:])
    assert 'auto_scale_lr.enable False -> True' in message(tmp_path)
