import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from univip_mm.demo import CLASSES, make_scene, make_scenes, writer
from univip_mm.demo.compose import MIN_OBJECTS

ROOT = Path(__file__).parents[2]
NUM = dict(train=24, val=6)


def make(out_dir, **kwargs):
    return make_scenes(
        out_dir, **{**dict(num_train=4, num_val=2, workers=1), **kwargs})


def digest(folder):
    """Return the checksum of every file in a folder."""
    return {
        path.relative_to(folder).as_posix():
            hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*')) if path.is_file()
    }


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Return the folder of a data set and the result of `make_scenes`."""
    out_dir = tmp_path_factory.mktemp('scenes') / 'demo'
    return out_dir, make(
        out_dir, num_train=NUM['train'], num_val=NUM['val'], workers=2)


def test_files_are_independent_of_workers(data, tmp_path):
    make(tmp_path, num_train=NUM['train'], num_val=NUM['val'])
    assert digest(tmp_path) == digest(data[0])


def test_workers_do_not_wait_for_opencv_threads(tmp_path):
    code = f"""
import cv2, numpy as np
from univip_mm.demo import make_scenes
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (0, 0), 5)
make_scenes({str(tmp_path)!r}, 3, 1, workers=2)
assert cv2.getNumThreads() == 4
"""
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60,
                   env=dict(os.environ, UNIVIP_HOST='none'))


def test_demo_imports_neither_torch_nor_host():
    code = """
import sys, univip_mm.demo
assert not {'torch', 'mmpretrain'} & set(sys.modules)
"""
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60,
                   env=dict(os.environ, UNIVIP_HOST='none'))


def test_images_are_independent_of_their_number(data, tmp_path):
    make(tmp_path)
    small, large = digest(tmp_path), digest(data[0])
    names = [name for name in small if name.endswith('.jpg')]
    assert len(names) == 6
    assert all(small[name] == large[name] for name in names)


def test_images_differ_within_and_between_seeds(data, tmp_path):
    make(tmp_path, seed=1)
    sums = [
        value for folder in (data[0], tmp_path)
        for name, value in digest(folder).items() if name.endswith('.jpg')
    ]
    assert len(set(sums)) == len(sums) == 36


@pytest.mark.parametrize('split', ['train', 'val'])
def test_images_have_the_annotated_size(data, split):
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
def test_boxes_and_areas_match_polygons(data, split):
    coco = COCO(data[0] / 'annotations' / f'{split}.json')
    assert [c['name'] for c in coco.cats.values()] == list(CLASSES)
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        x, y, w, h = annotation['bbox']
        assert annotation['iscrowd'] == 0
        assert annotation['category_id'] in coco.cats
        assert x >= 0 and y >= 0 and x + w <= 320 and y + h <= 240
        np.testing.assert_allclose(
            cv2.boundingRect(mask), annotation['bbox'], atol=2)
        assert 28**2 / 2 <= annotation['area'] <= 1.03 * int(mask.sum())


def test_annotate_polygons_match_masks():
    for i in range(10):
        _, objects = make_scene(np.random.default_rng([7, i]))
        for x in objects:
            annotation = writer.annotate(x)
            assert annotation['area'] == x.mask.sum()
            rles = mask_api.frPyObjects(annotation['segmentation'], 240, 320)
            decoded = mask_api.decode(mask_api.merge(rles)) > 0
            # Polygons have no holes, so the mug's handle is filled.
            mask = x.mask.astype(np.uint8)
            outlines = cv2.findContours(mask, cv2.RETR_EXTERNAL,
                                        cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
            iou = (decoded & (mask > 0)).sum() / (decoded | (mask > 0)).sum()
            assert iou > 0.95


def test_ids_are_unique_over_both_splits(data):
    contents = [
        json.loads((data[0] / 'annotations' / f'{split}.json').read_text())
        for split in NUM
    ]
    ids = [image['id'] for content in contents for image in content['images']]
    assert len(set(ids)) == len(ids) == sum(NUM.values())
    ids = [x['id'] for content in contents for x in content['annotations']]
    assert len(set(ids)) == len(ids) == data[1]['objects']
    assert sum(data[1]['per_class'].values()) == len(ids)


def test_make_scenes_other_size(tmp_path):
    make(tmp_path, num_train=1, num_val=1, size=(200, 131))
    coco = COCO(tmp_path / 'annotations' / 'train.json')
    image = cv2.imread(str(tmp_path / 'train/000001.jpg'))
    assert image.shape[:2] == (131, 200)
    assert len(coco.anns) >= MIN_OBJECTS


def test_make_scenes_keeps_equal_data(tmp_path):
    assert make(tmp_path)['made']
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
    result = make(tmp_path)
    assert not result['made'] and result['images'] == 6
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}


def test_make_scenes_replaces_other_parameters(tmp_path):
    make(tmp_path, num_train=5, seed=3)
    assert make(tmp_path)['made']
    make(tmp_path / 'fresh')
    fresh = digest(tmp_path / 'fresh')
    assert fresh.items() <= digest(tmp_path).items()
    assert len(digest(tmp_path)) == 2 * len(fresh)


def test_make_scenes_keeps_folders_of_the_user(tmp_path):
    for folder in ('.part', 'train'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'mine').touch()
        with pytest.raises(ValueError, match='not made by this tool'):
            make(tmp_path)
        assert (tmp_path / folder / 'mine').exists()
    (tmp_path / '.part/mine').unlink()
    with pytest.raises(ValueError, match='not made by this tool'):
        make(tmp_path)
    assert (tmp_path / 'train/mine').exists()


def test_make_scenes_restores_missing_image(tmp_path):
    make(tmp_path)
    before = digest(tmp_path)
    (tmp_path / 'val/000002.jpg').unlink()
    assert make(tmp_path)['made']
    assert digest(tmp_path) == before


@pytest.mark.parametrize('old', [False, True])
def test_make_scenes_repeats_interrupted_call(tmp_path, monkeypatch, old):
    if old:
        make(tmp_path / 'demo', seed=5)
    before = digest(tmp_path)
    with monkeypatch.context() as patch:
        written = []

        def interrupted(*args):
            if len(written) == 3:
                raise KeyboardInterrupt
            written.append(args)
            return write_scene(*args)

        write_scene = writer.write_scene
        patch.setattr(writer, 'write_scene', interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / 'demo')
    assert before.items() <= digest(tmp_path).items()  # old data is complete
    assert make(tmp_path / 'demo')['made']
    make(tmp_path / 'whole')
    assert digest(tmp_path / 'demo') == digest(tmp_path / 'whole')


def test_make_scenes_keeps_foreign_data(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/000001.jpg').write_bytes(b'mine')
    with pytest.raises(ValueError, match='not made by this tool: give an'):
        make(tmp_path)
    assert (tmp_path / 'train/000001.jpg').read_bytes() == b'mine'


def test_make_scenes_does_not_write_through_a_link(tmp_path):
    (tmp_path / 'other').mkdir()
    (tmp_path / 'demo').mkdir()
    (tmp_path / 'demo/.part').symlink_to(tmp_path / 'other')
    with pytest.raises(ValueError, match='is a link.*remove the link'):
        make(tmp_path / 'demo')
    assert list((tmp_path / 'other').iterdir()) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize('text', [
    '[' * 100_000, '{"info": {"parameters": 1}}', None,
    '{"info": {"parameters": %s}, "images": [3], "annotations": []}',
    '{"info": {"parameters": %s}, "images": [], "annotations": [{}]}'])
def test_make_scenes_replaces_damaged_annotations(tmp_path, text):
    make(tmp_path)
    before = digest(tmp_path)
    path = tmp_path / 'annotations/train.json'
    if text is None:
        path.unlink()
        os.mkfifo(path)
    else:
        parameters = json.loads(path.read_text())['info']['parameters']
        path.write_text(text.replace('%s', json.dumps(parameters)))
    assert make(tmp_path)['made']
    assert digest(tmp_path) == before


@pytest.mark.parametrize('kwargs, message', [
    (dict(size=(320, 50)), r'size is \(320, 50\), .* at least 96'),
    (dict(size=(320, )), 'a width and a height'),
    (dict(num_train=0), 'num_train is 0'),
    (dict(num_val=-1), 'num_val is -1'),
    (dict(seed=-1), 'seed is -1'),
    (dict(workers=0), 'workers is 0'),
])
def test_make_scenes_rejects_bad_arguments(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(tmp_path / 'demo', **kwargs)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'demo').exists()
