import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from tiny import demo_config, error_of, run_tool, watched, write_config

from univip_mm.engine import loop_checks
from univip_mm.engine.loop_checks import check_loop
from univip_mm.engine.network_check import check_network
from univip_mm.registry import HOOKS


def train_error(folder, *options):
    message = error_of(
        'train', write_config(folder), '--work-dir', folder / 'out',
        '--cfg-options', *(f'train_dataloader.{x}' for x in options))
    assert not list(folder.glob('out/*.jsonl'))  # no iteration
    return message


@pytest.mark.parametrize('options, parts', [
    (['batch_size=9'], [
        'batch_size is 9, and the data set has 8 images, so an epoch has no '
        'complete batch', 'lower batch_size to at most 8', 'RepeatDataset']),
    (['batch_size=9', 'dataset.indices=1'], [
        'the data set has 1 images', 'complete batch: repeat the images']),
    (['batch_size=7', 'drop_last=False'], [
        'the last batch has a single image', 'set train_dataloader.drop_last='
        'True, or change batch_size']),
    (['batch_size=2', 'drop_last=False', 'dataset.indices=1'], [
        'the last batch has a single image', 'use: repeat the images']),
    (['num_batch_per_epoch=5'], [
        'num_batch_per_epoch needs 10 images', 'has only 8'])])
def test_batches_that_fail_are_refused(coco_folder, options, parts):
    message = train_error(coco_folder, *options)
    assert all(part in message for part in parts), message


def test_batch_of_one_image_is_refused(coco_folder):
    message = train_error(coco_folder, 'batch_size=1')
    assert 'more than 1 value' in message and 'batch_size = 1' in message


@pytest.mark.parametrize('options, iterations', [
    (['batch_size=9', 'drop_last=False'], 1), (['batch_size=7'], 1),
    (['batch_size=3', 'drop_last=False'], 3), (['batch_size=8'], 1),
    (['batch_size=9', 'sampler.type=InfiniteSampler'], 0)])
def test_batches_that_work_are_accepted(coco_folder, options, iterations):
    if iterations == 0:  # the loader has no end, so the loop counts batches
        path = write_config(coco_folder)
        path.write_text(path.read_text().replace(
            'train_cfg = dict(max_epochs=2)', 'train_cfg = dict('
            "_delete_=True, type='IterBasedTrainLoop', max_iters=2)"
            "\nparam_scheduler = [dict(type='ConstantLR', by_epoch=False)]"
        ).replace('param_scheduler = [\n', 'unused = [\n'))
        iterations, epochs = 2, []
    else:
        path = write_config(coco_folder)
        epochs = ['train_cfg.max_epochs=1']
    run_tool('train', path, '--work-dir', coco_folder / 'out', '--cfg-options',
             *epochs, *(f'train_dataloader.{x}' for x in options))
    assert len(watched(coco_folder / 'out')) == iterations


def test_network_without_batch_norm_takes_one_image(coco_folder):
    crop = 'train_dataloader.dataset.pipeline.1.'
    norms = [f'model.{x}.norm_cfg.type=LN'
             for x in ('neck', 'head.predictor')]
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'out', '--cfg-options', 'train_cfg.max_epochs=1',
             'train_dataloader.batch_size=7',
             'train_dataloader.drop_last=False', *norms,
             # Of smaller views, the backbone's last feature map is one pixel.
             f'{crop}scene_size=64', f'{crop}instance_size=64')
    assert len(watched(coco_folder / 'out')) == 2


def test_training_shorter_than_a_step_is_refused(coco_folder):
    options = ['--work-dir', coco_folder / 'out', '--cfg-options',
               'train_cfg.max_epochs=1']
    message = error_of('train', write_config(coco_folder), *options,
                       'optim_wrapper.accumulative_counts=5')
    assert 'accumulative_counts is 5' in message
    assert 'only 4 iterations' in message
    run_tool('train', write_config(coco_folder), *options,
             'optim_wrapper.accumulative_counts=4')


@pytest.fixture
def runner(coco_folder):
    cfg = Config.fromfile(write_config(coco_folder))
    cfg.work_dir = str(coco_folder / 'out')
    cfg.launcher = 'none'
    cfg.train_dataloader.persistent_workers = False
    return Runner.from_cfg(cfg)


def test_processes_share_the_images(runner, monkeypatch):
    monkeypatch.setattr(loop_checks, 'get_world_size', lambda: 8)
    loader = runner.train_loop.dataloader
    loader.sampler.num_samples = 1  # of 8 on 8 processes
    with pytest.raises(ValueError) as e:
        check_loop(runner)
    assert str(e.value).startswith(
        'train_dataloader.batch_size is 2 on 8 processes, and the data set '
        'has 8 images, so an epoch has no complete batch: use fewer than 8 ')


def test_hook_checks_the_loop_of_the_host(runner, monkeypatch, logged):
    hook = HOOKS.build(dict(type='LoopCheckHook'))
    runner.param_schedulers = []
    hook.before_train(runner)
    runner.train_loop.dataloader.sampler.num_samples = 1
    with pytest.raises(ValueError, match='no complete batch'):
        hook.before_train(runner)
    assert demo_config().default_hooks.loop_check.type == 'LoopCheckHook'


def test_runner_without_config_is_checked(runner):
    """A Runner can be built from objects, without a config."""
    runner.cfg = Config()
    check_loop(runner)
    runner.optim_wrapper = OptimWrapper(
        torch.optim.SGD(runner.model.parameters(), 0.1),
        accumulative_counts=99)
    with pytest.raises(ValueError, match='accumulative_counts is 99'):
        check_loop(runner)
    check_network(runner.cfg)  # of a last batch of one image
