import json
import os

import pytest

from univip_mm.io.coco_json import read_coco


def test_read_coco_reads_images(coco_folder):
    assert len(read_coco(coco_folder / 'train.json')['images']) == 8


def test_read_coco_names_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.json'):
        read_coco(tmp_path / 'none.json')


@pytest.mark.parametrize('text, reason', [
    ('{"images": [', 'not a COCO json'),
    ('{"annotations": []}', "'images'"),
    ('[1, 2]', 'not a COCO json'),
    ('{"images": [{"id": 1}]}', 'file_name'),
    ('{"images": []}', 'no image'),
    ('{"images": [{"id": "007", "file_name": "a"}]}', "image id '007'"),
    ('{"images": [{"id": 1.5, "file_name": "a"}]}', 'image id 1.5'),
    ('{"images": [{"id": true, "file_name": "a"}]}', 'image id True'),
    ('{"images": [{"id": NaN, "file_name": "a"}]}', 'image id nan'),
    ('{"images": [{"id": 1e999, "file_name": "a"}]}', 'image id inf'),
    ('{"images": [{"id": 9223372036854775808, "file_name": "a"}]}', '64 bits'),
    ('{"images": [{"id": "%s", "file_name": "a"}]}' % ('x' * 10**5), 'xx...:'),
    ('{"images": [{"id": [1], "file_name": "a"}]}', 'not a COCO json'),
    ('{"images": [{"id": 1, "file_name": ["%s"]}]}' % ('x' * 10**5), 'string'),
    ('{"images": "abc"}', 'not a COCO json'),
    ('[' * 100_000, 'nested too deeply'),
    ('{"images": ' + '{"a": ' * 100_000, 'nested too deeply'),
    ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}',
     'only 1 different ids')])
def test_read_coco_rejects_invalid_json(
        tmp_path, text, reason):
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        read_coco(path)
    assert '\n' not in str(error.value) and 'a.json' in str(error.value)
    assert len(str(error.value)) < 500


def write(tmp_path, *names):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(dict(images=[
        dict(id=i, file_name=name) for i, name in enumerate(names, 1)])))
    return path


@pytest.mark.parametrize('name', [
    '../../etc/passwd', '/etc/passwd', '..', 'a/../../b.jpg', '../a.jpg',
    'link/../../b.jpg', r'..\..\b.jpg', r'\\host\share\b.jpg', 'C:/b.jpg',
    r'a\..\..\b.jpg', 'https://example.org/b.jpg', './../b.jpg'])
def test_read_coco_rejects_name_outside_folder(tmp_path, name):
    with pytest.raises(ValueError) as error:
        read_coco(write(tmp_path, 'a.jpg', name))
    assert f"image id 2 the file_name '{name}'" in str(error.value)
    assert '\n' not in str(error.value)


def test_read_coco_rejects_non_string_name(tmp_path):
    with pytest.raises(ValueError, match='image id 1 the file_name 7'):
        read_coco(write(tmp_path, 7))


def test_read_coco_accepts_names_below_folder(tmp_path):
    names = ['a.jpg', 'train/a.jpg', './b.jpg', 'a..b.jpg', '..a/b.jpg',
             'a b/c:d.jpg', 'n01/n01_1.JPEG']
    images = read_coco(write(tmp_path, *names))['images']
    assert [x['file_name'] for x in images] == names


def test_read_coco_normalizes_name_with_link(tmp_path):
    images = read_coco(write(tmp_path, 'link/../b.jpg'))['images']
    assert images[0]['file_name'] == 'b.jpg'


@pytest.mark.timeout(20)
def test_read_coco_requires_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / 'a.json')
    with pytest.raises(ValueError, match='not a regular file'):
        read_coco(tmp_path / 'a.json')
