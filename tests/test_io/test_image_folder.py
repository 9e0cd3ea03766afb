import json
import os

import pytest
from image_bytes import exif
from PIL import Image

from univip_mm.io.image_folder import list_folder


def test_list_folder_applies_exif_to_sizes(tmp_path):
    (tmp_path / 'b').mkdir()
    Image.new('RGB', (30, 20)).save(tmp_path / 'b' / 'x.jpg')
    Image.new('RGB', (30, 20)).save(tmp_path / 'a.JPEG', exif=exif(6))
    (tmp_path / 'c.png').write_text('no image')
    (tmp_path / 'notes.txt').write_text('')
    content = list_folder(tmp_path)
    assert content['images'] == [
        dict(id=1, file_name='a.JPEG', width=20, height=30),
        dict(id=2, file_name='b/x.jpg', width=30, height=20),
        dict(id=3, file_name='c.png')
    ]
    json.dumps(content)


@pytest.mark.timeout(20)
def test_list_folder_skips_and_counts_non_regular_files(tmp_path, caplog):
    Image.new('RGB', (30, 20)).save(tmp_path / 'c.jpg')
    os.mkfifo(tmp_path / 'a\n.jpg')
    (tmp_path / 'b.jpg').symlink_to('/dev/zero')
    (tmp_path / 'd.jpg').symlink_to('nowhere')
    (tmp_path / 'e.jpg').mkdir()
    images = list_folder(tmp_path)['images']
    assert images == [dict(id=1, file_name='c.jpg', width=30, height=20),
                      dict(id=2, file_name='d.jpg')]
    message, = caplog.messages
    assert 'skipped 2 paths' in message and r"'a\n.jpg'" in message


def test_list_folder_lists_a_linked_folder_once(tmp_path):
    (tmp_path / 'a').mkdir()
    Image.new('RGB', (30, 20)).save(tmp_path / 'a' / 'x.png')
    (tmp_path / 'a' / 'loop').symlink_to(tmp_path)
    (tmp_path / 'b').symlink_to('a')
    (tmp_path / 'elsewhere').symlink_to('nowhere')
    images = list_folder(tmp_path)['images']
    assert [x['file_name'] for x in images] == ['a/x.png']


def test_list_folder_names_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no image below'):
        list_folder(tmp_path)
