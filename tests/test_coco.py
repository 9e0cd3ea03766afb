import json

import pytest
from PIL import Image

from univip_mm.coco import list_folder, read_coco


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
