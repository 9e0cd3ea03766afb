import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmengine.optim import OptimWrapper
from ranks import run_ranks
from tiny import demo_config, make_coco_folder, run_tool, write_config
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from univip_mm.datasets import ProposalCocoDataset, RepeatDataset
from univip_mm.engine import rank_check
from univip_mm.engine.rank_check import (
    check_config_agrees,
    check_data_agrees,
    check_same_facts,
    check_start_agrees,
    check_weights_agree,
    errors_on_all_ranks,
)
from univip_mm.proposals import ProposalFile, write_proposals


def assert_all_stop(results, *parts):
    """Check that all ranks raised one message with all parts."""
    assert len(set(results)) == 1, results
    for part in parts:
        assert part in results[0]
    assert '\n' not in results[0]


# errors of one rank
def test_errors_on_all_ranks_passes_without_error(tmp_path):
    def work(rank):
        with errors_on_all_ranks():
            return 'done'
    assert run_ranks(work, tmp_path) == ['done', 'done']


@pytest.mark.parametrize('bad', [0, 1])
def test_errors_on_all_ranks_stops_the_other_rank(tmp_path, bad):
    def work(rank):
        with errors_on_all_ranks():
            if rank == bad:
                raise FileNotFoundError("no file 'train.json'")
    assert_all_stop(run_ranks(work, tmp_path),
                    f'ValueError: on rank {bad} (', "): no file 'train.json'")


def test_errors_on_all_ranks_keeps_a_common_error(tmp_path):
    def work(rank):
        with errors_on_all_ranks():
            raise FileNotFoundError('no config')
    assert run_ranks(work, tmp_path) == ['FileNotFoundError: no config'] * 2


def test_errors_on_all_ranks_reports_once_per_node(tmp_path):
    def work(rank):
        with errors_on_all_ranks():
            raise ValueError('no config')
    assert run_ranks(work, tmp_path, ('0', '1')) == [
        'ValueError: no config', 'SystemExit: 1']


def test_errors_on_all_ranks_shares_unexpected_errors(tmp_path):
    def work(rank):
        with errors_on_all_ranks():
            if rank:
                raise RuntimeError('no access')
    of_0, of_1 = run_ranks(work, tmp_path)
    assert of_1 == 'RuntimeError: no access'  # with its traceback
    assert of_0.startswith('ValueError: on rank 1 (')
    assert of_0.endswith('RuntimeError: no access')


def test_errors_on_all_ranks_joins_despite_an_error():
    joined = []
    with pytest.raises(ValueError, match='^no config$'):
        with errors_on_all_ranks(lambda: joined.append(1)):
            raise ValueError('no config')
    assert joined == [1]


def test_errors_on_all_ranks_prefers_the_first_error():
    def join():
        raise ValueError('no launcher')
    with pytest.raises(ValueError, match='^no config$'):
        with errors_on_all_ranks(join):
            raise ValueError('no config')
    with pytest.raises(ValueError, match='^no launcher$'):
        with errors_on_all_ranks(join):
            pass


# config and packages
@pytest.mark.parametrize('key, value', [
    ('optim_wrapper.optimizer.lr', 0.123),
    ('model.instance_loss.epsilon', 0.05), ('randomness.seed', 1),
    ('train_cfg.max_epochs', 3), ('train_dataloader.batch_size', 5),
    ('train_dataloader.dataset.pipeline.1.num_instances', 3)])
def test_check_config_agrees_names_the_key(tmp_path, key, value):
    def work(rank):
        cfg = demo_config(**({key: value} if rank else {}))
        check_config_agrees(cfg)
    assert_all_stop(run_ranks(work, tmp_path),
                    f'RanksDifferError: the ranks differ in config.{key}: '
                    f'{value} on rank 1 (', ' on rank 0 (',
                    'start all nodes with the same config and options')


def test_check_config_agrees_explains_another_checkpoint(tmp_path):
    def work(rank):
        check_config_agrees(demo_config(
            load_from=None if rank else 'work_dirs/x/epoch_1.pth'))
    assert_all_stop(run_ranks(work, tmp_path), 'config.load_from: None on',
                    'the nodes do not see the same checkpoints')


def test_check_config_agrees_compares_packages(tmp_path):
    def work(rank):
        if rank:
            sys.modules['simplejpeg'] = SimpleNamespace(__version__='0.1')
        check_config_agrees(demo_config())
    assert_all_stop(run_ranks(work, tmp_path), 'version.simplejpeg: 0.1 on',
                    'install the same packages on all nodes')


def test_check_config_agrees_compares_the_source_code(tmp_path):
    copied = tmp_path / 'univip_mm'
    shutil.copytree(os.path.dirname(os.path.dirname(rank_check.__file__)),
                    copied, ignore=shutil.ignore_patterns('.mim'))
    with open(copied / 'version.py', 'a') as file:
        file.write('\n')

    def work(rank):
        if rank:
            rank_check.__file__ = str(copied / 'engine/rank_check.py')
        check_config_agrees(demo_config())
    assert_all_stop(run_ranks(work, tmp_path), 'code.univip_mm',
                    'the same commit')


def test_check_config_agrees_accepts_equal_ranks(tmp_path):
    def work(rank):
        # Objects are others in each process; options can be in any order.
        changes = dict(hook=lambda: rank, object=object(), a=1, b=2)
        if rank:
            changes = dict(reversed(changes.items()))
        check_config_agrees(demo_config(**changes))
        return 'equal'
    assert run_ranks(work, tmp_path) == ['equal', 'equal']


def test_check_same_facts_counts_more_differences(tmp_path):
    def work(rank):
        check_same_facts({'config.a': 1, 'config.b': rank, 'config.c': rank})
    assert_all_stop(run_ranks(work, tmp_path), 'in config.b: 1 on rank 1',
                    '(and 1 other values)')


# data
@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """Return a data folder per node; the nodes see it under one path."""
    first = make_coco_folder(tmp_path / 'node0')
    shutil.copytree(first, tmp_path / 'node1')
    monkeypatch.chdir(tmp_path)
    return [tmp_path / 'node0', tmp_path / 'node1']


def data_results(nodes, tmp_path, wrap=lambda dataset: dataset, **options):
    def work(rank):
        os.chdir(nodes[rank])
        dataset = wrap(ProposalCocoDataset(
            'train.json', 'train.npz', data_prefix=dict(img_path='images')))
        check_data_agrees(SimpleNamespace(
            train_dataloader=SimpleNamespace(dataset=dataset), max_iters=8))
        return 'equal'
    return run_ranks(work, tmp_path, **options)


def test_check_data_agrees_accepts_equal_data(nodes, tmp_path):
    assert data_results(nodes, tmp_path) == ['equal', 'equal']


def test_check_data_agrees_names_a_changed_image(nodes, tmp_path):
    shutil.copy(nodes[1] / 'images/1.jpg', nodes[1] / 'images/5.jpg')
    assert_all_stop(data_results(nodes, tmp_path),
                    "1 of 8 image files: 'images/5.jpg' has ",
                    'on rank 1 (', 'copy the images again')


def test_check_data_agrees_compares_content_of_equal_size(nodes, tmp_path):
    path = nodes[1] / 'images/5.jpg'
    content = path.read_bytes()
    path.write_bytes(content[:-10] + bytes(10))
    assert_all_stop(data_results(nodes, tmp_path),
                    f"'images/5.jpg' has {len(content)} bytes with checksum")


def test_check_data_agrees_names_a_missing_image(nodes, tmp_path):
    (nodes[0] / 'images/5.jpg').unlink()
    assert_all_stop(data_results(nodes, tmp_path), "'images/5.jpg' has ",
                    'and is missing on rank 0')


def test_check_data_agrees_compares_the_order(nodes, tmp_path):
    path = nodes[1] / 'train.json'
    images = json.loads(path.read_text())['images']
    path.write_text(json.dumps(dict(images=images[::-1])))
    assert_all_stop(data_results(nodes, tmp_path), 'data.list of images')


def test_check_data_agrees_compares_the_number(nodes, tmp_path):
    path = nodes[1] / 'train.json'
    images = json.loads(path.read_text())['images']
    path.write_text(json.dumps(dict(images=images[:6])))
    assert_all_stop(data_results(nodes, tmp_path),
                    'data.number of images: 6 on rank 1')


def test_check_data_agrees_compares_the_proposals(nodes, tmp_path):
    boxes = dict(ProposalFile(nodes[0] / 'train.npz'))
    boxes[10] = boxes[10][::-1]
    write_proposals(nodes[1] / 'train.npz', boxes, {})
    assert_all_stop(data_results(nodes, tmp_path), 'data.proposals 0',
                    'copy the annotation file and the proposal file')


@pytest.mark.parametrize('wrap', [
    lambda x: RepeatDataset(x, 2), lambda x: ConcatDataset([x, x])])
def test_check_data_agrees_looks_into_wrappers(nodes, tmp_path, wrap):
    boxes = dict(ProposalFile(nodes[0] / 'train.npz'))
    boxes[10] = boxes[10][::-1]
    write_proposals(nodes[1] / 'train.npz', boxes, {})
    assert_all_stop(data_results(nodes, tmp_path, wrap), 'data.proposals 0')


def test_check_data_agrees_reads_files_once_per_node(nodes, tmp_path):
    (nodes[1] / 'images/5.jpg').unlink()
    assert data_results(nodes, tmp_path, local_ranks=('0', '1')) == [
        'equal', 'equal']


# state at the start
def start_results(tmp_path, change, cfg=None):
    def work(rank):
        torch.manual_seed(0)
        network = torch.nn.Linear(2, 2)
        model = DistributedDataParallel(network)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        runner = SimpleNamespace(
            seed=0, iter=4, cfg=cfg or {}, model=model, param_schedulers=[],
            optim_wrapper=OptimWrapper(optimizer))
        if rank:
            change(runner, network)
        check_start_agrees(runner)
        return 'equal'
    return run_ranks(work, tmp_path)


def test_check_start_agrees_accepts_equal_ranks(tmp_path):
    assert start_results(tmp_path, lambda *_: None) == ['equal', 'equal']


@pytest.mark.parametrize('name, change', [
    ('iteration: 0 on rank 1', lambda runner, _: setattr(runner, 'iter', 0)),
    ('seed: 1 on rank 1', lambda runner, _: setattr(runner, 'seed', 1)),
    ('weights', lambda _, network: network.bias.data.mul_(1 + 1e-6)),
    ('optimizer', lambda runner, network: runner.optim_wrapper.optimizer.state[
        network.bias]['momentum_buffer'].zero_()),
    ('learning rates: [0.2]', lambda runner, _:
     runner.optim_wrapper.param_groups[0].update(lr=0.2))])
def test_check_start_agrees_names_the_difference(tmp_path, name, change):
    assert_all_stop(start_results(tmp_path, change),
                    f'the ranks differ in resume.{name}',
                    'give all nodes the same checkpoint')


def test_check_start_agrees_accepts_seeds_by_rank(tmp_path):
    assert start_results(
        tmp_path, lambda runner, _: setattr(runner, 'seed', 1),
        dict(randomness=dict(diff_rank_seed=True))) == ['equal', 'equal']


def test_check_start_agrees_skips_a_sharded_optimizer(tmp_path):
    def work(rank):
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(), torch.optim.SGD, lr=0.1)
        check_start_agrees(SimpleNamespace(
            seed=0, iter=0, cfg={}, model=model, param_schedulers=[],
            optim_wrapper=OptimWrapper(optimizer)))
        return 'equal'
    assert run_ranks(work, tmp_path) == ['equal', 'equal']


def test_check_weights_agree_compares_the_checkpoint(tmp_path):
    def work(rank):
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
        check_weights_agree(model)
        model.module.weight.data.fill_(rank)
        check_weights_agree(model)
    assert_all_stop(run_ranks(work, tmp_path),
                    'RanksDifferError: the ranks differ in resume.weights')


# the whole tool
def test_train_stops_ranks_that_differ(coco_folder, tmp_path, capfd):
    configs = [write_config(coco_folder)] * 2
    configs[1] = coco_folder / 'other.py'
    configs[1].write_text(configs[0].read_text().replace(
        'max_epochs=2', 'max_epochs=3'))
    assert configs[0].read_text() != configs[1].read_text()

    def work(rank):
        os.environ.update(RANK=str(rank), WORLD_SIZE='2')
        run_tool('train', configs[rank], '--launcher', 'pytorch',
                 '--work-dir', tmp_path / 'work')
    assert_all_stop(run_ranks(work, tmp_path),
                    'SystemExit: error: the ranks differ in config.',
                    'max_epochs')
    assert not (tmp_path / 'work').exists()


def test_train_hook_stops_other_data_on_a_rank(nodes, tmp_path):
    config = write_config(nodes[0])
    text = config.read_text().replace(repr(str(nodes[0])), "''")
    for node in nodes:
        (node / 'tiny.py').write_text(text)
    shutil.copy(nodes[1] / 'images/1.jpg', nodes[1] / 'images/5.jpg')

    def work(rank):
        os.chdir(nodes[rank])
        os.environ.update(RANK=str(rank), WORLD_SIZE='2')
        run_tool('train', 'tiny.py', '--launcher', 'pytorch')
    assert_all_stop(run_ranks(work, tmp_path),
                    "SystemExit: error: the ranks differ in 1 of 8 image")
