import hashlib
import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from univip_mm.demo.scenes import (
    CLASSES,
    MIN_BOX_SIDE,
    MIN_OBJECTS,
    annotate,
    draw_object,
    make_scene,
    make_scenes,
)

ROOT = Path(__file__).parents[2]
NUM = dict(train=24, val=6)


def make(out_dir, **kwargs):
    return make_scenes(
        out_dir, **{**dict(num_train=4, num_val=2, workers=1), **kwargs})


def digest(folder):
    """Name and checksum of every file below a folder."""
    return {
        path.relative_to(folder).as_posix():
            hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*')) if path.is_file()
    }


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A data set, made once, and what was told of it."""
    out_dir = tmp_path_factory.mktemp('scenes') / 'demo'
    return out_dir, make(
        out_dir, num_train=NUM['train'], num_val=NUM['val'], workers=2)


@pytest.fixture(scope='module')
def scenes():
    return [make_scene(np.random.default_rng([7, i])) for i in range(40)]


def test_same_files_whatever_the_workers(data, tmp_path):
    make(tmp_path, num_train=NUM['train'], num_val=NUM['val'])
    assert digest(tmp_path) == digest(data[0])


def test_processes_do_not_wait_for_threads_of_opencv(tmp_path):
    code = f"""
import cv2, numpy as np
from univip_mm.demo.scenes import make_scenes
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (0, 0), 5)
make_scenes({str(tmp_path)!r}, 3, 1, workers=2)
assert cv2.getNumThreads() == 4
"""
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)


def test_an_image_does_not_depend_on_how_many_there_are(data, tmp_path):
    make(tmp_path)
    small, large = digest(tmp_path), digest(data[0])
    names = [name for name in small if name.endswith('.jpg')]
    assert len(names) == 6
    assert all(small[name] == large[name] for name in names)


def test_no_two_images_are_the_same_and_seeds_differ(data, tmp_path):
    make(tmp_path, seed=1)
    sums = [
        value for folder in (data[0], tmp_path)
        for name, value in digest(folder).items() if name.endswith('.jpg')
    ]
    assert len(set(sums)) == len(sums) == 36


@pytest.mark.parametrize('split', ['train', 'val'])
def test_images_have_the_stated_size(data, split):
    coco = COCO(data[0] / 'annotations' / f'{split}.json')
    assert len(coco.imgs) == NUM[split]
    files = {path.name for path in (data[0] / split).iterdir()}
    assert files == {image['file_name'] for image in coco.imgs.values()}
    for image in coco.imgs.values():
        pixels = cv2.imread(str(data[0] / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)
        assert pixels.shape == (240, 320, 3)
        assert pixels.std() > 10


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_fit_their_polygons(data, split):
    coco = COCO(data[0] / 'annotations' / f'{split}.json')
    assert [c['name'] for c in coco.cats.values()] == list(CLASSES)
    for thing in coco.anns.values():
        mask = coco.annToMask(thing)
        x, y, w, h = thing['bbox']
        assert thing['iscrowd'] == 0 and thing['category_id'] in coco.cats
        assert x >= 0 and y >= 0 and x + w <= 320 and y + h <= 240
        np.testing.assert_allclose(
            cv2.boundingRect(mask), thing['bbox'], atol=2)
        assert 28**2 / 2 <= thing['area'] <= 1.03 * int(mask.sum())


def test_polygons_are_the_outlines_of_the_masks(scenes):
    for _, objects in scenes[:10]:
        for thing in objects:
            told = annotate(thing)
            assert told['area'] == thing['mask'].sum()
            rles = mask_api.frPyObjects(told['segmentation'], 240, 320)
            drawn = mask_api.decode(mask_api.merge(rles)) > 0
            # A polygon has no holes: that of a mug's handle is filled.
            mask = thing['mask'].astype(np.uint8)
            outlines = cv2.findContours(mask, cv2.RETR_EXTERNAL,
                                        cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
            iou = (drawn & (mask > 0)).sum() / (drawn | (mask > 0)).sum()
            assert iou > 0.95


def test_ids_are_unique_over_both_splits(data):
    contents = [
        json.loads((data[0] / 'annotations' / f'{split}.json').read_text())
        for split in NUM
    ]
    ids = [image['id'] for content in contents for image in content['images']]
    assert len(set(ids)) == len(ids) == sum(NUM.values())
    ids = [thing['id'] for c in contents for thing in c['annotations']]
    assert len(set(ids)) == len(ids) == data[1]['objects']
    assert sum(data[1]['per_class'].values()) == len(ids)


def test_boxes_are_tight_to_what_is_visible(scenes):
    for image, objects in scenes:
        assert image.shape == (240, 320, 3) and image.dtype == np.uint8
        assert np.sum([thing['mask'] for thing in objects], axis=0).max() == 1
        for thing in objects:
            y, x = np.nonzero(thing['mask'])
            assert thing['bbox'].tolist() == [
                x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_every_object_is_large_enough(scenes):
    smallest = MIN_BOX_SIDE * 240
    sides = []
    for _, objects in scenes:
        assert len(objects) >= MIN_OBJECTS
        for thing in objects:
            assert thing['mask'].sum() >= smallest**2 / 2
            sides.extend(thing['bbox'][2:] - thing['bbox'][:2])
    assert min(sides) >= smallest
    low, high = np.quantile(sides, [0.1, 0.9])
    assert low > 32 and high < 150


def test_classes_occur_alike(scenes):
    inside = Counter(
        name for _, objects in scenes
        for name in {thing['name'] for thing in objects})
    assert set(inside) == set(CLASSES) and len(CLASSES) >= 8
    share = np.array(list(inside.values())) / len(scenes)
    assert share.min() > 0.02 and share.max() < 0.4


def test_images_hold_one_to_three_classes(scenes):
    numbers = [len({thing['name'] for thing in objects})
               for _, objects in scenes]
    assert set(numbers) == {1, 2, 3}


def test_objects_stand_out_and_are_in_the_image_where_told(scenes):
    # Without it a mask could be right of a thing that was never drawn.
    differ = []
    for image, objects in scenes:
        for thing in objects:
            mask = thing['mask'].astype(np.uint8)
            ring = cv2.dilate(mask, np.ones((9, 9), np.uint8)) - mask
            inside, outside = (
                np.array(cv2.meanStdDev(image, mask=part))
                for part in (mask, ring))
            differ.append(np.abs(inside - outside).max())
    assert np.quantile(differ, 0.02) > 15


@pytest.mark.parametrize('name', CLASSES)
def test_colour_does_not_tell_the_class(name):
    light = np.array([-0.4, -0.5, 0.77])
    means, shapes = [], []
    for i in range(12):
        colour, alpha = draw_object(name, np.random.default_rng(i), 60, light)
        assert colour.shape == (*alpha.shape, 3)
        assert alpha.min() >= 0 and alpha.max() == pytest.approx(1, abs=0.01)
        # Premultiplied: no colour where there is no object.
        assert (colour <= 255 * alpha[..., None] + 1e-3).all()
        means.append(colour.sum((0, 1)) / alpha.sum())
        shapes.append(alpha.shape)
    assert np.std(means, axis=0).min() > 12
    assert len(set(shapes)) > 1


def test_other_size(tmp_path):
    make(tmp_path, num_train=1, num_val=1, size=(200, 131))
    coco = COCO(tmp_path / 'annotations' / 'train.json')
    assert cv2.imread(str(tmp_path / 'train/000001.jpg')).shape[:2] == (131,
                                                                        200)
    assert len(coco.anns) >= MIN_OBJECTS


def test_same_parameters_change_nothing(tmp_path):
    assert make(tmp_path)['made']
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
    told = make(tmp_path)
    assert not told['made'] and told['images'] == 6
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}


def test_other_parameters_replace_all(tmp_path):
    make(tmp_path, num_train=5, seed=3)
    assert make(tmp_path)['made']
    make(tmp_path / 'fresh')
    fresh = digest(tmp_path / 'fresh')
    assert fresh.items() <= digest(tmp_path).items()
    assert len(digest(tmp_path)) == 2 * len(fresh)


def test_a_missing_image_is_made_again(tmp_path):
    make(tmp_path)
    before = digest(tmp_path)
    (tmp_path / 'val/000002.jpg').unlink()
    assert make(tmp_path)['made']
    assert digest(tmp_path) == before


@pytest.mark.parametrize('old', [False, True])
def test_an_interrupted_run_is_done_again(tmp_path, monkeypatch, old):
    from univip_mm.datasets import synthetic_scenes

    if old:
        make(tmp_path / 'demo', seed=5)
    before = digest(tmp_path)
    with monkeypatch.context() as patch:
        written = []

        def stop(*args):
            if len(written) == 3:
                raise KeyboardInterrupt
            written.append(args)
            return write(*args)

        write = synthetic_scenes.write_scene
        patch.setattr(synthetic_scenes, 'write_scene', stop)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / 'demo')
    left = digest(tmp_path)
    assert before.items() <= left.items()  # the old data is still whole
    assert make(tmp_path / 'demo')['made']
    make(tmp_path / 'whole')
    assert digest(tmp_path / 'demo') == digest(tmp_path / 'whole')


def test_data_of_others_is_left_alone(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/000001.jpg').write_bytes(b'mine')
    with pytest.raises(ValueError, match='not made here: give another'):
        make(tmp_path)
    assert (tmp_path / 'train/000001.jpg').read_bytes() == b'mine'


@pytest.mark.parametrize('kwargs, message', [
    (dict(size=(320, 50)), r'size is \(320, 50\), .* at least 96'),
    (dict(size=(320, )), 'a width and a height'),
    (dict(num_train=0), 'num_train is 0'),
    (dict(num_val=-1), 'num_val is -1'),
    (dict(seed=-1), 'seed is -1'),
    (dict(workers=0), 'workers is 0'),
])
def test_bad_arguments_are_told_in_one_line(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(tmp_path / 'demo', **kwargs)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'demo').exists()


def test_command_line(tmp_path, monkeypatch, capsys):
    def call(*args):
        script = ROOT / 'tools/demo/make_data.py'
        monkeypatch.setattr(
            sys, 'argv', [str(script), str(tmp_path / 'demo'), *args])
        runpy.run_path(str(script), run_name='__main__')
        return capsys.readouterr().out

    few = ('--num-train', '2', '--num-val', '1', '--workers', '1')
    told = call(*few)
    assert '3 images (2 train, 1 val)' in told and 'made in' in told
    assert 'mushroom' in told
    assert len(list((tmp_path / 'demo').rglob('*.jpg'))) == 3
    assert 'nothing to do' in call(*few)
    with pytest.raises(SystemExit, match=r'^error: size is \(9, 9\)'):
        call('--size', '9', '9')
