"""Record of a run's settings, and what is read from it."""
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from univip_mm.datasets import EpochSampler
from univip_mm.engine.changed_run import convert_position
from univip_mm.engine.run_record import (
    MAX_COUNT,
    RunRecord,
    _digest_of_order,
    _settings,
    describe_changes,
    progress,
    read_record,
    stored_iters_per_epoch,
)


def record(batch=2, world=1, number=8, **changes):
    """Return the record of a run by epochs without partial batches."""
    return RunRecord(**{**dict(
        by_epoch=True, batch_size=batch, world_size=world,
        accumulative_counts=1, num_images=number, order='a',
        iters_per_epoch=-(-number // (batch * world)), optimizer='SGD',
        settings={}), **changes})


def content(epoch, iteration, run=None, **info):
    """Return the parts of a checkpoint that give its position."""
    return dict(meta=dict(epoch=epoch, iter=iteration,
                          run=run and run._asdict()),
                message_hub=dict(runtime_info=info))


def used_images(sampler_of, record, first, last):
    """Return the images of some iterations of an epoch, on all ranks."""
    size, images = record.batch_size, set()
    for rank in range(record.world_size):
        own = list(sampler_of(record.world_size, rank))
        images.update(own[first * size:last * size])
    return images


@hypothesis.given(st.integers(1, 60), *[st.integers(1, 5)] * 4, st.data())
def test_conversion_uses_every_image(number, batch, world, batch2, world2,
                                     data):
    """Before and after the interruption, all images of the epoch are used."""
    old, new = record(batch, world, number), record(batch2, world2, number)
    done = data.draw(st.integers(0, old.iters_per_epoch))

    def sampler_of(world_size, rank):
        sampler = EpochSampler(range(number), seed=3)
        sampler.world_size, sampler.rank = world_size, rank
        sampler.num_samples = -(-number // world_size)
        sampler.total_size = sampler.num_samples * world_size
        return sampler

    position = convert_position(
        content(4, 4 * old.iters_per_epoch + done, old), old, new, True)
    start = position.iteration - 4 * new.iters_per_epoch
    assert position.epoch == 4 and 0 <= start <= new.iters_per_epoch
    before = used_images(sampler_of, old, 0, done)
    again = used_images(sampler_of, new, start, new.iters_per_epoch)
    assert before | again == set(range(number))
    # Less than one iteration is repeated, unless the epoch has ended.
    repeated = min(done * old.total_batch_size, number) - (
        start * new.total_batch_size)
    assert repeated < new.total_batch_size


@pytest.mark.parametrize('old, new, place, expected', [
    # Position of a run of 4 iterations per epoch: epoch, iteration
    (record(), record(), (1, 6), (1, 6)),
    (record(), record(4), (2, 8), (2, 4)),
    (record(), record(number=6), (1, 7), (1, 3)),
    (record(), record(order='b'), (1, 7), (1, 4)),
    (record(), record(number=6), (1, 8), (1, 6)),  # the epoch is complete
    (record(), record(batch_size=0, world_size=2), (1, 7), (1, 4)),
    (record(), record(iters_per_epoch=3), (1, 8), (1, 6)),  # drop_last
    (record(), record(iters_per_epoch=0), (1, 7), (1, 7)),  # no length
    (None, record(), (1, 7), (1, 7)),
    (None, record(4), (1, 7), (1, 2)),
    (record(), record(), (1, 99), (1, 4))])  # counted in another way
def test_position_after_change(old, new, place, expected):
    stored = content(*place, old, max_epochs=3, max_iters=12)
    assert convert_position(stored, old, new, True)[:2] == expected


@pytest.mark.parametrize('place, expected', [
    ((1, 6), (1, 4)), ((1, 8), (2, 8)), ((1, 4), (1, 4))])
def test_position_without_skipping(place, expected):
    stored = content(*place, record())
    assert convert_position(stored, record(), record(), False)[:2] == expected


def test_iterations_are_converted_by_images():
    old, new = (record(batch, by_epoch=False) for batch in (2, 4))
    assert convert_position(content(0, 7, old), old, new, True)[:2] == (0, 3)


@pytest.mark.parametrize('key, value', [
    ('batch_size', -1), ('world_size', True), ('num_images', MAX_COUNT + 1),
    ('order', 3), ('by_epoch', 1), ('iters_per_epoch', 2.0),
    ('settings', dict(a=3)), ('settings', {3: 'a'}), ('optimizer', None)])
def test_read_record_refuses_wrong_values(key, value):
    stored = record()._asdict()
    assert read_record(dict(run=stored)) == record()
    stored[key] = value
    with pytest.raises(ValueError, match=f'meta.run.{key} is '):
        read_record(dict(run=stored))
    del stored[key]
    with pytest.raises(ValueError, match=f'meta.run.{key} is None'):
        read_record(dict(run=stored))
    with pytest.raises(ValueError, match=r'meta\.run is a list'):
        read_record(dict(run=[stored]))


@pytest.mark.parametrize('info, length', [
    (dict(max_epochs=3, max_iters=12), 4), (dict(max_epochs=3), 0),
    (dict(max_epochs=1, max_iters=12), 12), (dict(max_epochs=0, max_iters=1),
                                             0),
    (dict(max_epochs=3, max_iters=13), 0), (dict(max_epochs='3', max_iters=12),
                                            0), ({}, 0)])
def test_stock_checkpoint_gives_iterations_per_epoch(info, length):
    assert stored_iters_per_epoch(content(1, 4, **info)) == length


def test_single_stock_epoch_can_be_a_training_by_iterations():
    assert stored_iters_per_epoch(
        content(0, 4, max_epochs=1, max_iters=12)) == 0


def test_progress_orders_checkpoints_of_changed_runs():
    small, large = record(2), record(4)
    places = [(0, 3, small), (1, 4, small), (1, 3, large), (1, 7, small),
              (2, 8, small), (3, 6, large)]
    values = [progress(content(*place)) for place in places]
    assert values == sorted(values) and len({*values}) == 6
    assert progress(content(1, 8, small)) == progress(content(2, 8, small))
    by_iter = [record(batch, by_epoch=False) for batch in (2, 4)]
    assert progress(content(0, 8, by_iter[0])) < progress(
        content(0, 5, by_iter[1]))


def test_describe_changes_names_values_once():
    old = record(settings={'a.lr': '0.1', 'b': "'x\x1b'", 'same': '1'})
    new = record(4, 2, 6, settings={'a.lr': '0.2', 'c': '3' * 99, 'same': '1'})
    assert describe_changes(old, new) == (
        'number of images 8 -> 6; number of processes 1 -> 2; iterations per '
        r"epoch 4 -> 1; a.lr 0.1 -> 0.2; b 'x\x1b' -> missing; c missing -> "
        + '3' * 37 + '...')
    many = {str(i): '1' for i in range(20)}
    assert describe_changes(record(), record(settings=many)).endswith(
        '; 7 missing -> 1; and 12 other values')


def test_record_has_no_passwords_and_no_caches():
    loader = dict(type='LoadEncodedImage', backend_args=dict(password='x'),
                  cache=['a.pixels'])
    cfg = dict(train_dataloader=dict(
        batch_size=2, dataset=dict(pipeline=[loader])))
    assert _settings(cfg) == {
        'train_dataloader.batch_size': '2',
        'train_dataloader.dataset.pipeline.0.type': "'LoadEncodedImage'"}


def test_describe_changes_is_short_for_forged_keys():
    assert len(describe_changes(
        record(settings={'a' * 10**6: 'b' * 10**6}), record())) < 200


def test_order_does_not_depend_on_the_folder(tmp_path, coco_folder):
    from univip_mm.datasets import ProposalCocoDataset
    shutil.copytree(coco_folder, tmp_path / 'moved', ignore=lambda *_: [
        'moved'])

    def digest(folder, sampler=EpochSampler, **options):
        dataset = ProposalCocoDataset(
            data_root=str(folder), ann_file='train.json',
            proposal_file='train.npz', data_prefix=dict(img_path='images'),
            pipeline=[], **options)
        return _digest_of_order(DataLoader(
            dataset, sampler=sampler(dataset, seed=0)))

    first = digest(coco_folder)
    assert digest(tmp_path / 'moved') == first
    assert digest(coco_folder, indices=[1, 0, *range(2, 8)]) != first
    assert digest(coco_folder, DefaultSampler) != first
