import json

import numpy as np
import pytest
import torch
from conftest import make_coco_folder
from mmengine.config import Config
from PIL import Image
from torch.utils.data import DataLoader

from univip_mm.boxes import ProposalRules
from univip_mm.datasets import ProposalCocoDataset
from univip_mm.proposals import ProposalFile, write_proposals
from univip_mm.registry import DATASETS, TRANSFORMS

PIPELINE = [
    TRANSFORMS.build(dict(type='LoadImageFromFile')),
    TRANSFORMS.build(dict(type='OverlapSceneCrop', scene_size=32,
                          instance_size=16)),
    TRANSFORMS.build(dict(type='PackInputs',
                          meta_keys=('img_path', 'img_id', 'num_proposed'))),
]


def build(root, **changes):
    return DATASETS.build({
        **dict(
            type='univip_mm.ProposalCocoDataset',
            data_root=str(root),
            ann_file='train.json',
            proposal_file='train.npz',
            data_prefix=dict(img_path='images'),
            pipeline=PIPELINE),
        **changes
    })


def change_json(root, change):
    path = root / 'train.json'
    content = json.loads(path.read_text())
    change(content['images'])
    path.write_text(json.dumps(content))


def test_samples_hold_the_proposals_of_their_image_by_its_id(coco_folder):
    dataset = build(coco_folder)
    proposals = ProposalFile(coco_folder / 'train.npz')
    assert isinstance(dataset, ProposalCocoDataset) and len(dataset) == 8
    for index in range(8):
        info = dataset.get_data_info(index)
        assert info['proposals'].dtype == np.float32
        assert np.array_equal(info['proposals'], proposals[info['img_id']])
        assert info['img_path'].endswith(f"{info['img_id'] // 10}.jpg")


def test_order_of_the_json_does_not_matter(coco_folder):
    change_json(coco_folder, list.reverse)
    proposals = ProposalFile(coco_folder / 'train.npz')
    info = build(coco_folder).get_data_info(0)
    assert info['img_id'] == 80 and len(info['proposals']) == 0
    info = build(coco_folder).get_data_info(7)
    assert np.array_equal(info['proposals'], proposals[10])


def test_packed_views_are_uint8_with_their_count_of_proposals(coco_folder):
    sample = build(coco_folder)[0]
    assert [tuple(v.shape) for v in sample['inputs']] == [
        (3, 32, 32)] * 2 + [(3, 16, 16)] * 4
    assert all(v.dtype == torch.uint8 for v in sample['inputs'])
    assert 0 <= sample['data_samples'].num_proposed <= 4


def test_image_without_proposals_gives_random_boxes(coco_folder):
    dataset = build(coco_folder)
    assert dataset[7]['data_samples'].num_proposed == 0


def test_several_data_sets_are_joined_though_their_ids_clash(tmp_path):
    make_coco_folder(tmp_path / 'a')
    make_coco_folder(tmp_path / 'b', number=5, side=200)
    joined = build(
        tmp_path,
        ann_file=['a/train.json', 'b/train.json'],
        proposal_file=['a/train.npz', 'b/train.npz'],
        data_prefix=dict(img_path=['a/images', 'b/images']))
    assert len(joined) == 13
    last = joined.get_data_info(12)
    assert '/b/images/' in last['img_path'] and len(last['proposals']) == 0
    assert '/a/images/' in joined.get_data_info(7)['img_path']


def test_lists_of_different_lengths_are_told(coco_folder):
    with pytest.raises(ValueError, match='same length'):
        build(coco_folder, ann_file=['train.json', 'train.json'])


def test_small_images_are_dropped_and_counted(coco_folder, logged):
    change_json(coco_folder, lambda images: images[2].update(width=63))
    dataset = build(coco_folder)
    assert len(dataset) == 7
    assert 30 not in [dataset.get_data_info(i)['img_id'] for i in range(7)]
    assert 'drops 1 of 8' in ' '.join(logged)
    with pytest.raises(ValueError, match='min_image_size'):
        build(coco_folder, min_image_size=1000)


@pytest.mark.parametrize('option', ['ann_file', 'proposal_file'])
def test_missing_file_is_named(coco_folder, option):
    with pytest.raises(FileNotFoundError, match='none'):
        build(coco_folder, **{option: 'none.npz'})


def test_proposals_of_other_images_are_told(coco_folder):
    change_json(coco_folder, lambda images: images[0].update(id=11))
    with pytest.raises(ValueError, match='lacks 1 of the 8 images.*id 11'):
        build(coco_folder)


def test_proposals_of_other_files_with_the_same_ids_are_told(coco_folder):
    boxes = dict(ProposalFile(coco_folder / 'train.npz'))
    write_proposals(coco_folder / 'train.npz', boxes,
                    dict(rules=ProposalRules().as_dict()),
                    {i: f'{i // 10}.jpg' for i in boxes})
    assert len(build(coco_folder)) == 8
    change_json(coco_folder, lambda images: images.pop(0))
    assert len(build(coco_folder)) == 7  # fewer images are no other ones
    change_json(coco_folder, lambda images: images[2].update(
        file_name='5.jpg'))
    with pytest.raises(ValueError, match="1 of the 7 ids.*id 40, now '5.jpg'"):
        build(coco_folder)


def test_folder_without_the_images_is_told_before_training(coco_folder):
    with pytest.raises(FileNotFoundError, match='data_prefix.img_path'):
        build(coco_folder, data_prefix=dict(img_path='elsewhere'))


def test_proposals_made_with_other_rules_are_told(coco_folder):
    boxes = dict(ProposalFile(coco_folder / 'train.npz'))
    write_proposals(coco_folder / 'train.npz', boxes,
                    dict(rules=ProposalRules(min_size=32).as_dict()))
    with pytest.raises(ValueError, match='min_size=32.*min_size=64'):
        build(coco_folder)
    pipeline = list(PIPELINE)
    pipeline[1] = TRANSFORMS.build(dict(type='OverlapSceneCrop', min_size=32))
    assert len(build(coco_folder, pipeline=pipeline)) == 8


@pytest.mark.parametrize('damage', ['text', 'empty', 'gone'])
@pytest.mark.parametrize('num_workers', [0, 2])
def test_unreadable_image_is_replaced_and_counted(
        coco_folder, damage, num_workers):
    path = coco_folder / 'images' / '3.jpg'
    if damage == 'gone':
        path.unlink()
    else:
        path.write_bytes(b'not a jpeg' if damage == 'text' else b'')
    dataset = build(coco_folder)
    np.random.seed(0)
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    paths = [sample['data_samples'].img_path for sample in loader]
    assert len(paths) == 8 and str(path) not in paths
    assert dataset.is_unreadable.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


def test_disk_that_is_gone_ends_the_training(coco_folder):
    dataset = build(coco_folder)
    for path in (coco_folder / 'images').iterdir():
        path.unlink()
    with pytest.raises(ValueError, match='50 images in a row.*disk'):
        dataset[0]
    assert dataset.is_unreadable.sum() <= 8


def test_error_of_a_transform_is_not_taken_for_an_unreadable_image(
        coco_folder):

    def broken(results):
        raise RuntimeError('a fault in the code')

    dataset = build(coco_folder, pipeline=[PIPELINE[0], broken])
    with pytest.raises(RuntimeError, match='a fault in the code'):
        dataset[0]


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB'])
def test_greyscale_and_cmyk_jpegs_look_as_they_should(coco_folder, mode):
    path = coco_folder / 'images' / '1.jpg'
    colour = Image.new('RGB', (200, 160), (200, 60, 30))
    colour.convert(mode).save(path, quality=95)
    results = PIPELINE[0](build(coco_folder).get_data_info(0))
    expected = Image.open(path).convert('RGB')
    shown = results['img'][..., ::-1].astype(int)
    assert np.abs(shown - np.asarray(expected).astype(int)).max() <= 12
    out = PIPELINE[1](results)
    assert all(view.shape[2] == 3 for view in out['img'])


def test_pipeline_may_come_from_a_config(coco_folder, univip_scope):
    cfg = Config(dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='OverlapSceneCrop')]))
    sample = build(coco_folder, pipeline=cfg.pipeline)[0]
    assert len(sample['img']) == 6
