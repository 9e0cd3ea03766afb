import json
import os
import pickle
import shutil
import time
import zipfile

import numpy as np
import pytest
import torch
from image_bytes import encode, photograph
from PIL import Image
from tiny import make_coco_folder

from univip_mm.datasets import ProposalCocoDataset
from univip_mm.datasets.transforms import LoadEncodedImage
from univip_mm.io.cache_writer import cache_pixels
from univip_mm.io.coco_json import read_coco
from univip_mm.io.images import MISSING, REASONS

CROP = dict(type='OverlapSceneCrop', scene_size=32, instance_size=16)


def make_cache(root, name='train.pixels', folder='images'):
    """Cache the images of ``train.json``, and return the path."""
    cache_pixels(read_coco(root / 'train.json')['images'], root / folder,
                 root / name, workers=1)
    return str(root / name)


def build(root, cache=None, **kwargs):
    dataset = ProposalCocoDataset(**{**dict(
        data_root=str(root), ann_file='train.json',
        proposal_file='train.npz', data_prefix=dict(img_path='images'),
        pipeline=[dict(type='LoadEncodedImage', cache=cache), CROP]),
        **kwargs})
    dataset.set_epoch(3, 1)
    return dataset


@pytest.fixture(autouse=True)
def scope(univip_scope):
    """Build the transforms by their names."""


def check_equal_views(ours, theirs):
    for a, b in zip(ours, theirs):
        assert a['img_id'] == b['img_id']
        assert all(map(np.array_equal, a['img'], b['img']))


def test_views_are_equal_with_a_cache(coco_folder, logged):
    cached = build(coco_folder, make_cache(coco_folder))
    assert 'has 8 of 8 images' in ' '.join(logged)
    # As for a worker that is started by 'spawn'.
    cached = pickle.loads(pickle.dumps(cached))
    check_equal_views(cached, build(coco_folder))


@pytest.mark.filterwarnings('error:The given NumPy array is not writable')
def test_device_cuts_are_equal_with_a_cache(coco_folder):
    crop = {**CROP, 'cut': 'device'}
    cache = make_cache(coco_folder)
    cached, plain = (build(coco_folder, pipeline=[
        dict(type='LoadEncodedImage', cache=x), crop]) for x in (cache, None))
    for ours, theirs in zip(cached, plain):
        assert all(map(torch.equal, ours['img'], theirs['img']))


def test_pixels_come_from_the_cache(coco_folder):
    """A file without an image is not read, as long as it looks unchanged."""
    expected = build(coco_folder)[0]['img']
    cached = build(coco_folder, make_cache(coco_folder))
    path = coco_folder / 'images/1.jpg'
    stat = path.stat()
    times = stat.st_atime_ns, stat.st_mtime_ns
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=times)
    assert all(map(np.array_equal, cached[0]['img'], expected))
    path.write_bytes(bytes(stat.st_size + 1))
    os.utime(path, ns=times)
    cached[0]
    assert cached.skipped[0]


def test_file_that_changes_in_a_training_is_read(coco_folder):
    cached = build(coco_folder, make_cache(coco_folder))
    path = coco_folder / 'images/1.jpg'
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    expected = build(coco_folder)[0]['img']
    assert all(map(np.array_equal, cached[0]['img'], expected))
    path.write_bytes(bytes(len(data)))
    cached[0]
    assert cached.skipped[0]


@pytest.mark.parametrize('change', [
    lambda path: os.truncate(path, 1000),
    lambda path: open(path, 'r+b').write(bytes(5000)),
])
def test_cache_that_is_written_over_is_not_used(coco_folder, change, logged):
    """Reading a map beyond the end of its file would kill the process."""
    cache = make_cache(coco_folder)
    cached = build(coco_folder, cache)
    cached[0]
    time.sleep(0.01)  # the clock of a file system has steps
    change(cache)
    del logged[:]
    check_equal_views(cached, build(coco_folder))
    assert sum('was written over' in x for x in logged) == 1


def test_cache_that_is_gone_in_a_new_worker_is_not_used(coco_folder, logged):
    cache = make_cache(coco_folder)
    cached = build(coco_folder, cache)
    worker = pickle.loads(pickle.dumps(cached))
    os.remove(cache)
    check_equal_views(worker, build(coco_folder))
    assert sum('no pixel cache' in x for x in logged) == 1
    assert not worker.skipped.any()


def test_cache_can_be_replaced_in_a_training(coco_folder):
    cached = build(coco_folder, make_cache(coco_folder))
    make_cache(coco_folder, 'other.pixels')
    os.replace(coco_folder / 'other.pixels', coco_folder / 'train.pixels')
    check_equal_views(cached, build(coco_folder))
    assert cached.pipeline.transforms[0].caches[0]


@pytest.mark.parametrize('cache', [[], '', 40, True, [['x']], ['x', 3]])
def test_wrong_cache_is_refused(cache):
    with pytest.raises(ValueError, match='must be the path of a pixel cache'):
        LoadEncodedImage(cache=cache)


def test_joined_data_sets_have_a_cache_each(tmp_path):
    caches = [make_cache(make_coco_folder(tmp_path / x, side=side))
              for x, side in (('a', 160), ('b', 200))]
    joined = dict(ann_file=['a/train.json', 'b/train.json'],
                  proposal_file=['a/train.npz', 'b/train.npz'],
                  data_prefix=dict(img_path=['a/images', 'b/images']))
    plain = build(tmp_path, **joined)
    check_equal_views(build(tmp_path, caches, **joined), plain)
    check_equal_views(build(tmp_path, [None, caches[1]], **joined), plain)
    with pytest.raises(ValueError, match='have 1 and 2 entries'):
        build(tmp_path, caches[0], **joined)


def test_images_of_an_archive_are_cached(coco_folder):
    expected = build(coco_folder)
    path = shutil.make_archive(str(coco_folder / 'im'), 'zip',
                               coco_folder / 'images')
    shutil.move(coco_folder / 'images', coco_folder / 'im')
    prefix = dict(img_path='im.zip')
    cache = make_cache(coco_folder, folder='im.zip')
    cached = build(coco_folder, cache, data_prefix=prefix)
    os.utime(path, (1, 1))  # equal content, for example of a copy
    again = build(coco_folder, cache, data_prefix=prefix)
    shutil.move(coco_folder / 'im', coco_folder / 'images')
    check_equal_views(cached, expected)
    check_equal_views(again, expected)
    with zipfile.ZipFile(path, 'a') as file, pytest.warns(UserWarning):
        file.writestr('1.jpg', encode())
    with pytest.raises(ValueError, match=r"1 of 8 files .*1\.jpg"):
        build(coco_folder, cache, data_prefix=prefix)


def test_stale_cache_is_refused(coco_folder):
    cache = make_cache(coco_folder)
    path = coco_folder / 'images/3.jpg'
    stat = path.stat()
    os.utime(path, (1, 1))
    build(coco_folder, cache)  # equal content, for example of a copy
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    assert path.stat().st_size == stat.st_size
    with pytest.raises(ValueError, match=r"1 of 8 files .*3\.jpg.*run tools"):
        build(coco_folder, cache)
    Image.fromarray(photograph()).save(path)
    with pytest.raises(ValueError, match='out of date'):
        build(coco_folder, cache)


def test_foreign_cache_is_refused(coco_folder, tmp_path):
    cache = make_cache(coco_folder)
    path = coco_folder / 'train.json'
    content = json.loads(path.read_text())
    names = [x['file_name'] for x in content['images']]
    for image, name in zip(content['images'], names[1:] + names[:1]):
        image['file_name'] = name
    path.write_text(json.dumps(content))
    other = make_cache(coco_folder, 'other.pixels')
    for image, name in zip(content['images'], names):
        image['file_name'] = name
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='made for other images.*run tools'):
        build(coco_folder, other)
    for image in content['images']:
        image['id'] += 100
    path.write_text(json.dumps(content))
    strange = make_cache(coco_folder, 'strange.pixels')
    for image in content['images']:
        image['id'] -= 100
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='has none of the 8 images'):
        build(coco_folder, strange)
    build(coco_folder, cache)


def test_cut_short_cache_is_refused_at_the_start(coco_folder):
    cache = make_cache(coco_folder)
    os.truncate(cache, os.path.getsize(cache) - 4096)
    with pytest.raises(ValueError, match='cannot be used.*run tools'):
        build(coco_folder, cache)


def test_missing_source_is_counted_as_without_a_cache(coco_folder):
    cache = make_cache(coco_folder)
    (coco_folder / 'images/2.jpg').unlink()
    cached = build(coco_folder, cache)
    plain = build(coco_folder)
    check_equal_views(cached, plain)
    assert REASONS[cached.skipped[1] - 1] == MISSING
    assert cached.skipped.tolist() == plain.skipped.tolist()


def test_images_outside_the_cache_are_read(coco_folder):
    path = coco_folder / 'train.json'
    text = path.read_text()
    content = json.loads(text)
    content['images'] = content['images'][:3]
    path.write_text(json.dumps(content))
    cache = make_cache(coco_folder)
    path.write_text(text)
    check_equal_views(build(coco_folder, cache), build(coco_folder))


def test_remote_images_have_no_cache(coco_folder):
    cache = make_cache(coco_folder)
    with pytest.raises(ValueError, match='needs images on the local disk'):
        build(coco_folder, pipeline=[dict(
            type='LoadEncodedImage', cache=cache,
            backend_args=dict(backend='http')), CROP],
            data_prefix=dict(img_path='http://localhost:1/'))


@pytest.mark.parametrize('option', ['reduce', 'fast_dct'])
def test_options_that_change_pixels_are_refused(option):
    with pytest.raises(ValueError, match='remove these options'):
        build('', pipeline=[dict(type='LoadEncodedImage', cache='x',
                                 **{option: True})])
