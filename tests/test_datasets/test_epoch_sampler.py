import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, default_collate
from torch.utils.data import DataLoader

from univip_mm.datasets import EpochSampler, ProposalCocoDataset
from univip_mm.datasets.proposal_coco import derive_view_seed
from univip_mm.registry import DATA_SAMPLERS

PIPELINE = [
    dict(type='LoadEncodedImage'),
    dict(type='OverlapSceneCrop', scene_size=16, instance_size=8),
    dict(type='PackInputs', meta_keys=('img_id', 'view_seed'))]


def build(coco_folder, pipeline=PIPELINE):
    return ProposalCocoDataset(
        ann_file='train.json', proposal_file='train.npz',
        data_root=str(coco_folder), data_prefix=dict(img_path='images'),
        pipeline=pipeline)


def run_epochs(coco_folder, epochs, num_workers=0, seed=5):
    """Return {image id: (first scene, view seed)} for each epoch."""
    dataset = build(coco_folder)
    sampler = EpochSampler(dataset, shuffle=True, seed=seed)
    loader = DataLoader(
        dataset, batch_size=2, sampler=sampler, num_workers=num_workers,
        persistent_workers=num_workers > 0, collate_fn=default_collate)
    seen = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        seen.append({
            sample.img_id: (scene.numpy().tobytes(), sample.view_seed)
            for batch in loader for sample, scene in zip(
                batch['data_samples'], batch['inputs'][0])
        })
    return seen


def test_views_depend_on_seed_epoch_and_image_only(
        coco_folder, univip_scope):
    first, second = run_epochs(coco_folder, [0, 1])
    assert sorted(first) == sorted(second) == list(range(10, 90, 10))
    assert not set(first.values()) & set(second.values())
    # Neither persistent workers nor the first epoch changes the views.
    assert run_epochs(coco_folder, [0, 1], num_workers=2) == [first, second]
    assert run_epochs(coco_folder, [1], num_workers=3) == [second]
    other, = run_epochs(coco_folder, [0], seed=6)
    assert not set(first.values()) & set(other.values())


def test_replacement_of_unreadable_image_is_seeded(
        coco_folder, univip_scope):
    (coco_folder / 'images/3.jpg').write_bytes(b'')
    first, second, again = run_epochs(coco_folder, [0, 1, 0])
    assert 30 not in first and first == again != second
    np.random.seed(1)
    assert run_epochs(coco_folder, [0], num_workers=2) == [first]


def test_views_without_sampler_are_not_seeded(coco_folder, univip_scope):
    dataset = build(coco_folder)
    a, b = (dataset[0]['data_samples'].view_seed for _ in range(2))
    assert a != b


def test_order_matches_default_sampler():
    data = list(range(20))
    ours, theirs = (cls(data, shuffle=True, seed=3)
                    for cls in (EpochSampler, DefaultSampler))
    for epoch in (0, 1, 7):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        assert list(ours) == list(theirs)


def test_epoch_sampler_is_registered():
    built = DATA_SAMPLERS.build(
        dict(type='univip_mm.EpochSampler', dataset=[1, 2], shuffle=False))
    assert list(built) == [0, 1]


@pytest.mark.parametrize('changed', ['seed', 'epoch', 'source', 'img_id'])
def test_derive_view_seed_depends_on_every_argument(changed):
    parts = dict(seed=1, epoch=2, source=0, img_id=7)
    seeds = {derive_view_seed(**{**parts, changed: i}) for i in range(1000)}
    assert len(seeds) == 1000
    bits = torch.tensor([[s >> b & 1 for b in range(63)] for s in seeds])
    assert (bits.float().mean(0) - 0.5).abs().max() < 0.1
