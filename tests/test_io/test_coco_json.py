import json

import pytest
from PIL import Image

from univip_mm.io.coco_json import list_folder, read_coco


def test_reads_the_images(coco_folder):
    assert len(read_coco(coco_folder / 'train.json')['images']) == 8


def test_missing_file_is_named(tmp_path):
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
    ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}',
     'only 1 different ids')])
def test_file_that_is_no_coco_json_is_told_in_one_line(
        tmp_path, text, reason):
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        read_coco(path)
    assert '\n' not in str(error.value) and 'a.json' in str(error.value)


def write(tmp_path, *names):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(dict(images=[
        dict(id=i, file_name=name) for i, name in enumerate(names, 1)])))
    return path


@pytest.mark.parametrize('name', [
    '../../etc/passwd', '/etc/passwd', '..', 'a/../../b.jpg', '../a.jpg',
    'link/../../b.jpg', r'..\..\b.jpg', r'\\host\share\b.jpg', 'C:/b.jpg',
    r'a\..\..\b.jpg', 'https://example.org/b.jpg', './../b.jpg'])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError) as error:
        read_coco(write(tmp_path, 'a.jpg', name))
    assert f"image id 2 the file_name '{name}'" in str(error.value)
    assert '\n' not in str(error.value)


def test_a_name_must_be_a_text(tmp_path):
    with pytest.raises(ValueError, match='image id 1 the file_name 7'):
        read_coco(write(tmp_path, 7))


def test_names_below_the_folder_are_taken(tmp_path):
    names = ['a.jpg', 'train/a.jpg', './b.jpg', 'a..b.jpg', '..a/b.jpg',
             'a b/c:d.jpg', 'n01/n01_1.JPEG']
    images = read_coco(write(tmp_path, *names))['images']
    assert [x['file_name'] for x in images] == names


def test_a_way_up_does_not_go_through_a_link(tmp_path):
    images = read_coco(write(tmp_path, 'link/../b.jpg'))['images']
    assert images[0]['file_name'] == 'b.jpg'


def test_lists_a_folder_with_the_sizes_that_a_viewer_shows(tmp_path):
    (tmp_path / 'b').mkdir()
    Image.new('RGB', (30, 20)).save(tmp_path / 'b' / 'x.jpg')
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    Image.new('RGB', (30, 20)).save(tmp_path / 'a.JPEG', exif=turned)
    (tmp_path / 'c.png').write_text('no image')
    (tmp_path / 'notes.txt').write_text('')
    content = list_folder(tmp_path)
    assert content['images'] == [
        dict(id=1, file_name='a.JPEG', width=20, height=30),
        dict(id=2, file_name='b/x.jpg', width=30, height=20),
        dict(id=3, file_name='c.png')
    ]
    json.dumps(content)


def test_folder_without_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no image below'):
        list_folder(tmp_path)
