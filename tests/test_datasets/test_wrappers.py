import mmengine.dataset
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, default_collate
from mmengine.runner import Runner
from tiny import make_coco_folder
from torch.utils.data import DataLoader

from univip_mm.datasets import EpochSampler, RepeatDataset
from univip_mm.datasets.wrappers import leaves, replace_leaves, set_epoch
from univip_mm.registry import DATASETS

PIPELINE = [
    dict(type='LoadEncodedImage'),
    dict(type='OverlapSceneCrop', scene_size=16, instance_size=8),
    dict(type='PackInputs', meta_keys=('img_path', 'view_seed'))]


def config(root, **changes):
    return dict(
        type='ProposalCocoDataset', data_root=str(root),
        ann_file='train.json', proposal_file='train.npz',
        data_prefix=dict(img_path='images'), pipeline=PIPELINE, **changes)


def repeated(root, times):
    return DATASETS.build(dict(type='RepeatDataset', times=times,
                               dataset=config(root)))


def seeds(dataset, epoch):
    """Return the view seeds of an epoch by path, from worker processes."""
    sampler = EpochSampler(dataset, shuffle=True, seed=5)
    sampler.set_epoch(epoch)
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=2,
                        collate_fn=default_collate)
    found = {}
    for batch in loader:
        for sample in batch['data_samples']:
            found.setdefault(sample.img_path, set()).add(sample.view_seed)
    return found


def test_repetitions_have_the_views_of_epochs(coco_folder, univip_scope):
    plain = DATASETS.build(config(coco_folder))
    first, second, third, fourth = (seeds(plain, i) for i in range(4))
    dataset = repeated(coco_folder, 2)
    assert isinstance(dataset, RepeatDataset) and len(dataset) == 16
    for epoch, (a, b) in enumerate([(first, second), (third, fourth)]):
        assert seeds(dataset, epoch) == {x: a[x] | b[x] for x in a}


def test_joined_data_sets_have_the_views_of_one(tmp_path, univip_scope):
    for name in 'ab':
        make_coco_folder(tmp_path / name)
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[
        config(tmp_path / name) for name in 'ab']))
    one = DATASETS.build({**config(tmp_path), **dict(
        ann_file=['a/train.json', 'b/train.json'],
        proposal_file=['a/train.npz', 'b/train.npz'],
        data_prefix=dict(img_path=['a/images', 'b/images']))})
    found = seeds(joined, 1)
    assert found == seeds(one, 1)
    assert len(set.union(*found.values())) == 16  # the ids are the same


def test_skipped_images_are_recorded_in_wrappers(coco_folder, univip_scope):
    (coco_folder / 'images/3.jpg').unlink()
    dataset = DATASETS.build(dict(type='ConcatDataset', datasets=[
        config(coco_folder, indices=2),
        dict(type='RepeatDataset', times=2, dataset=config(coco_folder))]))
    seeds(dataset, 0)
    skipped = [x.skipped.tolist() for x in leaves(dataset)]
    assert skipped == [[0] * 2, [0, 0, 1, 0, 0, 0, 0, 0]]


def test_num_batch_per_epoch_is_a_wrapper(coco_folder, univip_scope):
    loader = Runner.build_dataloader(dict(
        batch_size=2, num_workers=0, num_batch_per_epoch=3,
        dataset=config(coco_folder), sampler=dict(type='EpochSampler')))
    dataset, = leaves(loader.dataset)
    set_epoch(loader.dataset, 0, 4)
    assert len(loader.dataset) == 6 and len(dataset) == 8
    assert loader.dataset[0]['data_samples'].view_seed == (
        dataset[0]['data_samples'].view_seed)
    copied = replace_leaves(loader.dataset, lambda leaf: list(range(8)))
    assert len(copied) == 6 and copied[5] == 5


class Fold:
    """Wrapper of another package."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 2


@pytest.mark.parametrize('wrap, expected', [
    (Fold, 'a Fold of test_wrappers .* use ConcatDataset, RepeatDataset'),
    (lambda x: Fold(Fold(x)), 'a Fold of'),
    (lambda x: mmengine.dataset.RepeatDataset(x, 2),
     "type='univip_mm.RepeatDataset'"),
    (lambda x: ConcatDataset([x, x]).datasets.append(x) or Fold(
        ConcatDataset([x])), 'a Fold of')])
def test_unknown_wrapper_is_refused(
        coco_folder, univip_scope, wrap, expected):
    with pytest.raises(ValueError, match=expected):
        EpochSampler(wrap(DATASETS.build(config(coco_folder))))


def test_wrapper_that_needs_classes_is_refused(coco_folder, univip_scope):
    with pytest.raises(ValueError, match='has no classes'):
        DATASETS.build(dict(type='ClassBalancedDataset', oversample_thr=.1,
                            dataset=config(coco_folder)))


def test_other_data_sets_keep_their_wrappers():
    for data in ([1, 2], Fold([1, 2]), Fold(Fold([3]))):
        assert leaves(data) == [data]
        assert len(EpochSampler(data)) == 2


def test_repeat_refuses_times_and_nested_repeats(coco_folder, univip_scope):
    with pytest.raises(ValueError, match='times is 0'):
        repeated(coco_folder, 0)
    with pytest.raises(ValueError, match='multiply the times'):
        RepeatDataset(dict(type='ConcatDataset', datasets=[
            dict(type='RepeatDataset', times=2,
                 dataset=config(coco_folder))]), 2)


@pytest.mark.parametrize('in_place', [True, False])
def test_subset_records_skipped_images(coco_folder, univip_scope, in_place):
    (coco_folder / 'images/3.jpg').unlink()
    dataset = DATASETS.build(config(coco_folder))
    set_epoch(dataset, 0, 0)
    if in_place:
        dataset.get_subset_([2, 4])
    else:
        dataset = dataset.get_subset([2, 4])
    np.random.seed(0)
    assert len(dataset.skipped) == 2
    assert '/images/3.jpg' not in str(seeds(dataset, 0))
    assert dataset.skipped.tolist() == [1, 0]
