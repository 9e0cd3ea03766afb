import json
import os
import pickle

import cv2
import numpy as np
import pytest
import torch
from image_bytes import exif, many_scans
from mmengine.config import Config
from PIL import Image
from tiny import make_coco_folder
from torch.utils.data import DataLoader

from univip_mm.datasets import ProposalCocoDataset
from univip_mm.io.boxes import ProposalRules
from univip_mm.io.images import REASONS, NoReadableImageError
from univip_mm.proposals import (
    ProposalFile,
    Search,
    generate_proposals,
    write_proposals,
)
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


def test_sample_has_proposals_of_its_image_id(coco_folder):
    dataset = build(coco_folder)
    proposals = ProposalFile(coco_folder / 'train.npz')
    assert isinstance(dataset, ProposalCocoDataset) and len(dataset) == 8
    for index in range(8):
        info = dataset.get_data_info(index)
        assert info['proposals'].dtype == np.float32
        assert np.array_equal(info['proposals'], proposals[info['img_id']])
        assert info['img_path'].endswith(f"{info['img_id'] // 10}.jpg")


def test_proposals_do_not_depend_on_json_order(coco_folder):
    change_json(coco_folder, list.reverse)
    proposals = ProposalFile(coco_folder / 'train.npz')
    info = build(coco_folder).get_data_info(0)
    assert info['img_id'] == 80 and len(info['proposals']) == 0
    info = build(coco_folder).get_data_info(7)
    assert np.array_equal(info['proposals'], proposals[10])


def test_packed_views_are_uint8(coco_folder):
    sample = build(coco_folder)[0]
    assert [tuple(v.shape) for v in sample['inputs']] == [
        (3, 32, 32)] * 2 + [(3, 16, 16)] * 4
    assert all(v.dtype == torch.uint8 for v in sample['inputs'])
    assert 0 <= sample['data_samples'].num_proposed <= 4


def test_image_without_proposals_has_random_boxes(coco_folder):
    dataset = build(coco_folder)
    assert dataset[7]['data_samples'].num_proposed == 0


def test_joined_data_sets_may_share_ids(tmp_path):
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


def test_lists_must_have_equal_lengths(coco_folder):
    with pytest.raises(ValueError, match='same length'):
        build(coco_folder, ann_file=['train.json', 'train.json'])


def test_small_images_are_dropped_and_logged(coco_folder, logged):
    change_json(coco_folder, lambda images: images[2].update(width=63))
    dataset = build(coco_folder)
    assert len(dataset) == 7
    assert 30 not in [dataset.get_data_info(i)['img_id'] for i in range(7)]
    assert 'drops 1 of 8' in ' '.join(logged)
    with pytest.raises(ValueError, match='min_image_size'):
        build(coco_folder, min_image_size=1000)


def mark_unreadable(root, ids):
    write_proposals(root / 'train.npz',
                    dict(ProposalFile(root / 'train.npz')),
                    dict(rules=ProposalRules().as_dict(), unreadable=ids))


def test_images_that_were_not_searched_are_dropped(coco_folder, logged):
    change_json(coco_folder, lambda images: (
        images[2].update(file_name='a\n.jpg'), images[3].update(width=63)))
    mark_unreadable(coco_folder, [30, 80, 990])
    dataset = build(coco_folder)
    folder = str(coco_folder / 'images')
    assert dataset.unreadable == [f'{folder}/a\n.jpg', f'{folder}/8.jpg']
    assert [dataset.get_data_info(i)['img_id'] for i in range(5)] == [
        10, 20, 50, 60, 70]
    assert len(dataset) == len(dataset.skipped) == 5
    first, second = (x for x in logged if ' drops ' in x)
    assert first.startswith(
        'ProposalCocoDataset drops 2 of 8 images that the proposal search '
        rf'could not read: {folder}/a\n.jpg, {folder}/8.jpg; repair them')
    assert 'drops 1 of 6 images' in second
    # A subset is chosen from the others, so the first ones are not missed.
    subset = build(coco_folder, indices=3)
    assert len(subset) == 3 and subset.unreadable == []


def test_error_names_images_that_were_not_searched(coco_folder):
    mark_unreadable(coco_folder, list(range(10, 90, 10)))
    with pytest.raises(ValueError, match='8 images could not be read by the '
                       'proposal search.*repair the images'):
        build(coco_folder)


@pytest.mark.parametrize('option', ['ann_file', 'proposal_file'])
def test_missing_file_raises(coco_folder, option):
    with pytest.raises(FileNotFoundError, match='none'):
        build(coco_folder, **{option: 'none.npz'})


def test_proposals_of_other_ids_raise(coco_folder):
    change_json(coco_folder, lambda images: images[0].update(id=11))
    with pytest.raises(ValueError, match='lacks 1 of the 8 images.*id 11'):
        build(coco_folder)


def test_proposals_of_other_file_names_raise(coco_folder):
    boxes = dict(ProposalFile(coco_folder / 'train.npz'))
    write_proposals(coco_folder / 'train.npz', boxes,
                    dict(rules=ProposalRules().as_dict()),
                    {i: f'{i // 10}.jpg' for i in boxes})
    assert len(build(coco_folder)) == 8
    change_json(coco_folder, lambda images: images.pop(0))
    assert len(build(coco_folder)) == 7  # a subset is accepted
    change_json(coco_folder, lambda images: images[2].update(
        file_name='5.jpg'))
    with pytest.raises(ValueError, match="1 of the 7 ids.*id 40, now '5.jpg'"):
        build(coco_folder)


def test_folder_without_images_raises(coco_folder):
    with pytest.raises(FileNotFoundError, match='data_prefix.img_path'):
        build(coco_folder, data_prefix=dict(img_path='elsewhere'))


def test_proposals_with_other_rules_raise(coco_folder):
    boxes = dict(ProposalFile(coco_folder / 'train.npz'))
    write_proposals(coco_folder / 'train.npz', boxes,
                    dict(rules=ProposalRules(min_size=32).as_dict()))
    with pytest.raises(ValueError, match='min_size=32.*min_size=64'):
        build(coco_folder)
    pipeline = list(PIPELINE)
    pipeline[1] = TRANSFORMS.build(dict(type='OverlapSceneCrop', min_size=32))
    assert len(build(coco_folder, pipeline=pipeline)) == 8


def reasons(dataset):
    """Return the reason of each skipped image by index."""
    return {index: REASONS[code - 1]
            for index, code in enumerate(dataset.skipped.tolist()) if code}


LOADERS = ['LoadImageFromFile', 'LoadEncodedImage']


@pytest.mark.parametrize('damage, reason', [
    ('text', 'not an image, or a damaged one'),
    ('missing', 'the file is missing'),
    ('folder', 'not a regular file'),
    ('pipe', 'not a regular file'),
    ('link to device', 'not a regular file'),
    ('loop', 'the file cannot be read'),
    ('small', 'a side below min_image_size')])
@pytest.mark.parametrize('loader', LOADERS)
@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.timeout(60)
def test_unreadable_image_is_replaced_and_recorded(
        coco_folder, damage, reason, loader, num_workers):
    path = coco_folder / 'images' / '3.jpg'
    path.unlink()
    if damage == 'text':
        path.write_bytes(b'not a jpeg')
    elif damage == 'folder':
        path.mkdir()
    elif damage == 'pipe':
        os.mkfifo(path)
    elif damage == 'link to device':
        path.symlink_to('/dev/zero')
    elif damage == 'loop':
        path.symlink_to(path)
    elif damage == 'small':  # the json has another size
        Image.new('RGB', (4000, 1)).save(path)
    dataset = build(coco_folder, pipeline=[
        TRANSFORMS.build(dict(type=loader)), *PIPELINE[1:]])
    np.random.seed(0)
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    paths = [sample['data_samples'].img_path for sample in loader]
    assert len(paths) == 8 and str(path) not in paths
    assert reasons(dataset) == {2: reason}


@pytest.mark.parametrize('content, reason', [
    (lambda whole: b'', 'the file is empty'),
    (lambda whole: whole[:len(whole) // 2],
     'the file ends before the image does')])
def test_incomplete_file_has_its_own_reason(
        coco_folder, content, reason):
    path = coco_folder / 'images' / '3.jpg'
    path.write_bytes(content(path.read_bytes()))
    dataset = build(coco_folder, pipeline=[
        TRANSFORMS.build(dict(type='LoadEncodedImage')), *PIPELINE[1:]])
    assert str(path) != dataset[2]['data_samples'].img_path
    assert reasons(dataset) == {2: reason}


@pytest.mark.parametrize('num_workers', [0, 1])
def test_missing_disk_raises_in_one_line(
        coco_folder, num_workers):
    dataset = build(coco_folder)
    for path in (coco_folder / 'images').iterdir():
        path.unlink()
    with pytest.raises(NoReadableImageError) as e:
        next(iter(DataLoader(dataset, batch_size=None,
                             num_workers=num_workers)))
    assert str(e.value).startswith('50 images in a row cannot be read')
    assert str(e.value).endswith('check that the disk is mounted')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('loader', LOADERS)
def test_log_escapes_names(coco_folder, logged, loader):
    name = 'a\n\x1b[2J\tb\udc80.jpg'
    change_json(coco_folder, lambda images: images[2].update(file_name=name))
    dataset = build(coco_folder, pipeline=[
        TRANSFORMS.build(dict(type=loader)), *PIPELINE[1:]])
    dataset[2]
    assert r'a\n\x1b[2J\tb\udc80.jpg' in logged[-1]
    assert logged[-1].isprintable()


@pytest.mark.parametrize('loader', LOADERS)
def test_loader_limits_scans_and_bytes(coco_folder, monkeypatch, loader):
    images = coco_folder / 'images'
    (images / '3.jpg').write_bytes(many_scans(51))
    (images / '5.jpg').write_bytes(many_scans(50))
    monkeypatch.setattr('univip_mm.io.images.MAX_BYTES', 10**5)
    with open(images / '6.jpg', 'ab') as file:
        file.truncate(10**5 + 1)
    dataset = build(coco_folder, min_image_size=8, pipeline=[
        TRANSFORMS.build(dict(type=loader)), *PIPELINE[1:]])
    for index in (2, 4, 5):
        dataset[index]
    assert reasons(dataset) == {
        2: 'too many progressive scans', 5: 'too many bytes'}


@pytest.mark.parametrize('boxes, num_proposed', [
    ([[150, 100, 260, 200], [0, 0, 300, 160]], 0),
    ([[200, 0, 300, 100], [500, 500, 600, 600]], 0),
    ([[40000, 0, 40100, 100], [0, 0, 70, 70], [10, 90, 90, 161]], 1),
    ([], 0)])
def test_proposal_outside_image_is_no_instance(
        coco_folder, boxes, num_proposed):
    all_boxes = {**ProposalFile(coco_folder / 'train.npz'),
                 30: np.array(boxes).reshape(-1, 4)}
    write_proposals(coco_folder / 'train.npz', all_boxes,
                    dict(rules=ProposalRules().as_dict()))
    # Scenes as large as the image contain all valid proposals.
    crop = TRANSFORMS.build(dict(
        type='OverlapSceneCrop', crop_ratio_range=(1, 1),
        aspect_ratio_range=(1.25, 1.25), scene_size=32, instance_size=16))
    dataset = build(coco_folder, pipeline=[PIPELINE[0], crop])
    sample = dataset[2]
    assert sample['num_proposed'] == num_proposed
    low, high = sample['instance_boxes'][:, :2], sample['instance_boxes'][
        :, 2:]
    assert (low >= 0).all() and (high <= [200, 160]).all()
    packed = PIPELINE[2](sample)
    assert [tuple(v.shape) for v in packed['inputs']] == [
        (3, 32, 32)] * 2 + [(3, 16, 16)] * 4


LANDMARK = (32, 64, 144, 176)  # in an upright image of 240 x 320


@pytest.mark.parametrize('loader, sizes', [
    ('LoadImageFromFile', 'as stored'), ('LoadEncodedImage', 'upright')])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_proposals_and_views_follow_exif_orientation(
        tmp_path, orientation, loader, sizes):
    upright = np.full((320, 240, 3), 90, np.uint8)
    x1, y1, x2, y2 = LANDMARK
    upright[y1:y2, x1:x2] = (250, 30, 30)
    # Store the image as a camera does that is held in this orientation.
    stored = Image.fromarray(upright)
    for step in {2: ['FLIP_LEFT_RIGHT'], 3: ['ROTATE_180'],
                 4: ['FLIP_TOP_BOTTOM'], 5: ['TRANSPOSE'], 6: ['ROTATE_90'],
                 7: ['TRANSVERSE'], 8: ['ROTATE_270']}.get(orientation, []):
        stored = stored.transpose(Image.Transpose[step])
    stored.save(tmp_path / 'a.jpg', exif=exif(orientation), quality=100,
                subsampling=0)
    width, height = stored.size if sizes == 'as stored' else (240, 320)
    images = [dict(id=1, file_name='a.jpg', width=width, height=height)]
    (tmp_path / 'train.json').write_text(json.dumps(dict(images=images)))

    generate_proposals(images, tmp_path, tmp_path / 'train.npz', Search(),
                       workers=1)
    boxes = ProposalFile(tmp_path / 'train.npz')[1]
    off = np.abs(boxes - np.array(LANDMARK)).max(axis=1)
    assert off.min() <= 4  # a wrong orientation is off by at least 32
    write_proposals(tmp_path / 'train.npz', {1: boxes[[off.argmin()]]},
                    dict(rules=ProposalRules().as_dict()))

    crop = TRANSFORMS.build(dict(
        type='OverlapSceneCrop', crop_ratio_range=(1, 1), scene_size=32,
        aspect_ratio_range=(.75, .75), instance_size=16))
    dataset = build(tmp_path, data_prefix=dict(img_path=''), pipeline=[
        TRANSFORMS.build(dict(type=loader)), crop])
    sample = dataset[0]
    assert sample['num_proposed'] == 1
    red = np.array([30, 30, 250])
    assert np.abs(sample['img'][2][2:-2, 2:-2].astype(int) - red).max() < 25
    expected = cv2.resize(np.ascontiguousarray(upright[..., ::-1]), (32, 32),
                          interpolation=cv2.INTER_CUBIC)
    assert cv2.PSNR(sample['img'][0].copy(), expected) > 30


def test_pickled_data_set_keeps_skipped(coco_folder):
    (coco_folder / 'images' / '3.jpg').unlink()
    dataset = build(coco_folder, pipeline=PIPELINE[:1])
    dataset[2]
    assert reasons(pickle.loads(pickle.dumps(dataset))) == {
        2: 'the file is missing'}


def test_error_of_transform_is_raised(
        coco_folder):

    def broken(results):
        raise RuntimeError('a fault in the code')

    dataset = build(coco_folder, pipeline=[PIPELINE[0], broken])
    with pytest.raises(RuntimeError, match='a fault in the code'):
        dataset[0]


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB'])
def test_gray_and_cmyk_jpegs_become_rgb(coco_folder, mode):
    path = coco_folder / 'images' / '1.jpg'
    color = Image.new('RGB', (200, 160), (200, 60, 30))
    color.convert(mode).save(path, quality=95)
    results = PIPELINE[0](build(coco_folder).get_data_info(0))
    expected = Image.open(path).convert('RGB')
    shown = results['img'][..., ::-1].astype(int)
    assert np.abs(shown - np.asarray(expected).astype(int)).max() <= 12
    out = PIPELINE[1](results)
    assert all(view.shape[2] == 3 for view in out['img'])


def test_pipeline_from_config(coco_folder, univip_scope):
    cfg = Config(dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='OverlapSceneCrop')]))
    sample = build(coco_folder, pipeline=cfg.pipeline)[0]
    assert len(sample['img']) == 6
