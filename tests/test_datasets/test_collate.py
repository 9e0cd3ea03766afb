import copy

import pytest
import torch
from mmengine.dataset import default_collate
from tiny import make_coco_folder
from torch.utils.data import DataLoader

from univip_mm.datasets import (
    OverlapSceneCrop,
    ProposalCocoDataset,
    collate_views,
)
from univip_mm.models import UniVIPDataPreprocessor
from univip_mm.visualization.training_views import open_views


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make_coco_folder(tmp_path_factory.mktemp('coco') / 'data')


def data_set(folder, load=None, **crop):
    data = ProposalCocoDataset(
        ann_file='train.json', proposal_file='train.npz',
        data_root=str(folder), data_prefix=dict(img_path='images'),
        pipeline=[dict(type='LoadEncodedImage', **(load or {})),
                  dict(type='OverlapSceneCrop', num_instances=3,
                       scene_size=64, instance_size=32, **crop),
                  dict(type='PackInputs', meta_keys=(
                      'img_path', 'num_proposed', 'view_seed'))])
    data.set_epoch(0, 2)
    return data


@pytest.mark.parametrize('workers, load', [
    (1, {}), (0, dict(reduce=True))])
def test_device_cuts_the_views_of_the_worker(folder, univip_scope, workers,
                                             load):
    batches = [next(iter(DataLoader(
        data_set(folder, load, cut=cut), batch_size=8, num_workers=workers,
        collate_fn=collate_views))) for cut in ('worker', 'device')]
    assert set(batches[1]['inputs']) == {'pixels', 'table', 'sizes'}
    samples = [x.pop('data_samples') for x in batches]
    assert [x.view_seed for x in samples[0]] == [
        x.view_seed for x in samples[1]]
    preprocessor = UniVIPDataPreprocessor(mean=[0] * 3, std=[1] * 3)
    views = [preprocessor(x)['inputs'] for x in batches]
    assert [x.shape for x in views[0]] == [x.shape for x in views[1]]
    gaps = torch.cat([(a - b).abs().flatten() for a, b in zip(*views)])
    assert gaps.max() <= 1 and (gaps > 0).float().mean() < 1e-3
    # The augmentation is the same function of the seed.
    views = [preprocessor(dict(x, data_samples=y), True)['inputs']
             for x, y in zip(batches, samples)]
    assert all((a - b).abs().mean() < 0.5 for a, b in zip(*views))


@pytest.mark.parametrize('workers', [0, 1])
def test_device_decodes_the_images_of_the_worker(folder, univip_scope,
                                                 workers):
    batches = [next(iter(DataLoader(
        data_set(folder, dict(decode=decode), cut='device'), batch_size=8,
        num_workers=workers, collate_fn=collate_views)))
        for decode in ('worker', 'device')]
    assert set(batches[1]['inputs']) == {
        'pixels', 'table', 'sizes', 'files', 'lengths'}
    assert batches[1]['inputs']['pixels'].numel() == 0
    preprocessor = UniVIPDataPreprocessor(mean=[0] * 3, std=[1] * 3)
    views = [preprocessor(x)['inputs'] for x in batches]
    assert len(views[0]) == 5 and all(map(torch.equal, *views))
    # A batch is not modified: a replay can preprocess it again.
    again = preprocessor(batches[1])['inputs']
    assert all(map(torch.equal, again, views[1]))


def test_batch_mixes_files_and_decoded_images(folder, univip_scope):
    data = data_set(folder, dict(decode='device'), cut='device')
    jpeg, other = data[0], data[1]
    assert jpeg['inputs'][0].ndim == 1
    plain = data_set(folder, cut='device')[1]
    mixed = collate_views([jpeg, plain, other])['inputs']
    assert [x > 0 for x in mixed['lengths']] == [True, False, True]
    preprocessor = UniVIPDataPreprocessor(mean=[0] * 3, std=[1] * 3)
    views = preprocessor(dict(inputs=mixed, data_samples=None))['inputs']
    assert all(torch.equal(x[1], x[2]) for x in views)
    assert not torch.equal(views[0][0], views[0][1])


def test_plain_views_are_collated_as_by_the_host(folder, univip_scope):
    samples = [data_set(folder)[i] for i in range(3)]
    ours, theirs = collate_views(samples), default_collate(samples)
    assert all(map(torch.equal, ours['inputs'], theirs['inputs']))
    assert ours['data_samples'] == theirs['data_samples']


def test_part_of_the_image_is_only_what_the_views_need(folder, univip_scope):
    data = data_set(folder, cut='device', crop_ratio_range=(0.1, 0.3))
    part, boxes = data[0]['inputs']
    x1, y1, x2, y2, _ = boxes.T
    assert part.shape == (y2.max(), x2.max(), 3) and x1.min() == y1.min() == 0
    assert part.numel() < 160 * 200 * 3


def test_pictures_show_the_views_that_the_device_cuts(folder, univip_scope):
    opened = [open_views(data_set(folder, dict(decode=way), cut=way)).dataset
              for way in ('worker', 'device')]
    for ours, theirs in zip(opened[0][1]['img'], opened[1][1]['img']):
        assert (ours == theirs).all()


@pytest.mark.parametrize('options, message', [
    (dict(cut='gpu'), "must be 'worker' or 'device'"),
    (dict(cut='device', interpolation='bilinear'), 'bicubic as OpenCV only'),
    (dict(cut='device', backend='pillow'), "backend is 'pillow'"),
    (dict(interpolation='cubic'), 'must be one of nearest')])
def test_crop_refuses_what_cannot_be_cut(options, message):
    with pytest.raises(ValueError, match=message):
        OverlapSceneCrop(**options)


def test_crop_keeps_the_interpolations_of_pillow():
    results = dict(img=torch.zeros(80, 90, 3, dtype=torch.uint8).numpy(),
                   proposals=[], view_seed=0)
    crop = OverlapSceneCrop(interpolation='box', backend='pillow')
    assert len(crop(results)['img']) == 6


def test_crop_is_copied_with_its_options():
    crop = copy.deepcopy(OverlapSceneCrop(cut='device'))
    assert "cut='device'" in repr(crop)
