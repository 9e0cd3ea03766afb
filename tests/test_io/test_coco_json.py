import gzip
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univip_mm.io.coco_json import image_path, read_coco, whole_number


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
    ('{"images": [{"id": [1], "file_name": "a"}]}', r'image id \[1\]'),
    ('{"images": [{"id": null, "file_name": "a"}]}', 'image id None'),
    ('{"images": [{"id": 1, "file_name": ""}]}', "file_name ''"),
    ('{"images": [{"id": 1, "file_name": null}]}', 'file_name None'),
    ('{"images": [{"file_name": "a"}]}', 'entry 0'),
    ('{"images": [7]}', "entry 0 of 'images' is 7"),
    ('{"images": null}', "its 'images' is None"),
    ('{"images": [{"id": 5, "file_name": "a"}, {"id": "5", "file_name": ""}]}',
     "file_name ''"),
    ('{"images": [{"id": 5, "file_name": "a"}, {"id": "5", "file_name": "b"}]'
     '}', 'first repeated: 5'),
    ('{"images": []}\n{"images": []}', 'Extra data: line 2'),
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


def read(tmp_path, *images):
    """Write images with ids from 1; return the images and the remarks."""
    path, lines = tmp_path / 'a.json', []
    path.write_text(json.dumps(dict(images=[
        dict(dict(id=i, file_name=f'{i}.jpg'), **image)
        for i, image in enumerate(images, 1)])))
    return read_coco(path, lines.append)['images'], lines


@pytest.mark.parametrize('value', [
    None, 0, -1, '', 'abc', True, 640.5, float('nan'), float('inf'), 10**30,
    [640], '0640', {}])
def test_unusable_size_is_removed_and_counted(tmp_path, value):
    images, lines = read(tmp_path, dict(width=640, height=480),
                         dict(width=value, height=480),
                         dict(width=640, height=value), {})
    assert (images[0]['width'], images[0]['height']) == (640, 480)
    for image in images[1:]:
        assert 'width' not in image and 'height' not in image
    line, = lines
    assert '2 images' in line and 'id 2, width' in line and len(line) < 300


@pytest.mark.parametrize('width, height', [
    ('640', '480'), (640.0, 480.0), (640, '480')])
def test_size_of_a_whole_number_is_converted(tmp_path, width, height):
    images, lines = read(tmp_path, dict(width=width, height=height))
    assert [images[0][x] for x in ('width', 'height')] == [640, 480]
    assert {type(images[0][x]) for x in ('width', 'height')} == {int}
    assert '1 images' in lines[0] and 'read as a whole number' in lines[0]


def test_text_and_float_ids_are_converted(tmp_path):
    images, lines = read(tmp_path, dict(id='12'), dict(id=13.0), dict(id=-1))
    assert [x['id'] for x in images] == [12, 13, -1]
    assert type(images[1]['id']) is int
    assert "2 image ids" in lines[0] and "the first: '12'" in lines[0]


def test_usual_json_gives_no_remark(tmp_path):
    _, lines = read(tmp_path, {}, dict(width=1, height=1_000_000))
    assert lines == []


@given(st.integers(-2**63, 2**63 - 1))
def test_whole_number_reads_each_text_of_an_integer(value):
    assert whole_number(str(value)) == value == whole_number(value)
    if abs(value) <= 2**53:
        assert whole_number(float(value)) == value


@given(st.text('-+_ 0123456789.eE\u0661', max_size=6))
def test_whole_number_reads_one_text_per_integer(text):
    number = whole_number(text)
    assert number is None or str(number) == text


def test_repeated_file_name_is_counted(tmp_path):
    images, lines = read(tmp_path, *[dict(file_name='a.jpg')] * 3, {})
    assert len(images) == 4
    assert "2 images whose file" in lines[0] and "'a.jpg'" in lines[0]


def test_default_report_is_a_warning(tmp_path, caplog):
    read_coco(write(tmp_path, 'a.jpg', 'a.jpg'))
    assert 'a.json' in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le'])
def test_encodings_of_windows_are_read(tmp_path, encoding):
    path = tmp_path / 'a.json'
    path.write_bytes(write(tmp_path, 'é.jpg').read_text().encode(encoding))
    assert read_coco(path)['images'][0]['file_name'] == 'é.jpg'


def test_compressed_json_names_the_cure(tmp_path):
    path = write(tmp_path, 'a.jpg')
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match='gunzip'):
        read_coco(path)


def test_json_below_a_file_is_missing(tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(FileNotFoundError, match='no annotation file'):
        read_coco(tmp_path / 'a' / 'b.json')


@pytest.mark.parametrize('name, files, found', [
    (r'train\a.jpg', ['train/a.jpg'], 'train/a.jpg'),
    (r'train\a.jpg', [], 'train/a.jpg'),
    (r'train\a.jpg', [r'train\a.jpg', 'train/a.jpg'], r'train\a.jpg'),
    ('a%20b.jpg', ['a b.jpg'], 'a b.jpg'),
    ('a%20b.jpg', ['a b.jpg', 'a%20b.jpg'], 'a%20b.jpg'),
    ('a%20b.jpg', [], 'a%20b.jpg'),
    ('%2e%2e/out.jpg', ['../out.jpg'], '%2e%2e/out.jpg'),
    ('%2fout.jpg', [], '%2fout.jpg'),
    ('a%00.jpg', [], 'a%00.jpg'),
    ('a.jpg', [], 'a.jpg')])
def test_image_path_finds_the_file(tmp_path, name, files, found):
    folder = tmp_path / 'images'
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
    assert image_path(folder, name) == str(folder / found)


def test_image_path_of_a_remote_folder_uses_slashes():
    assert image_path('s3://bucket/a', r'b\c.jpg') == 's3://bucket/a/b/c.jpg'
