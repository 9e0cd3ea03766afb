import os
import shutil
from collections import namedtuple

import pytest

from univip_mm.proposals import Search, generate_proposals
from univip_mm.proposals.start_checks import (
    check_disk_space,
    check_folder,
    check_images,
    check_outputs,
)

IMAGES = [dict(id=1, file_name='1.jpg'), dict(id=2, file_name='2.jpg')]


@pytest.mark.parametrize('change, message', [
    (dict(id=2**63), 'the id 9223372036854775808'), (dict(id='2'), "id '2'"),
    (dict(id=True), 'id True'), (dict(id=2.), 'id 2.0'),
    (dict(id=None), 'id None'), (dict(id=1), 'id 1 more than once'),
    (dict(file_name=None), 'file_name None'),
    (dict(file_name=''), "file_name ''")])
def test_check_images_names_what_cannot_be_stored(change, message):
    with pytest.raises(ValueError, match=message):
        check_images([IMAGES[0], {**IMAGES[1], **change}])


def test_check_images_accepts_any_file_name():
    check_images([dict(id=-2**63, file_name=os.fsdecode(b'\xff.jpg')),
                  dict(id=2**63 - 1, file_name='\ud800')])


def test_search_fails_before_first_image(tmp_path, monkeypatch):
    monkeypatch.setattr('univip_mm.proposals.generate._search_images', None)
    images = [IMAGES[0], dict(id=2**63, file_name='2.jpg')]
    with pytest.raises(ValueError, match='ids must be'):
        generate_proposals(images, tmp_path, tmp_path / 'a.npz', Search())
    (tmp_path / 'b.npz').mkdir()
    with pytest.raises(ValueError, match='which is a folder'):
        generate_proposals(IMAGES, tmp_path, tmp_path / 'b.npz', Search())
    with pytest.raises(ValueError, match='none of 2 images that were tried'):
        generate_proposals(IMAGES, tmp_path, tmp_path / 'c.npz', Search())
    assert [x.name for x in tmp_path.iterdir()] == ['b.npz']


def test_check_outputs_leaves_files_as_they_are(tmp_path):
    path = tmp_path / 'new' / 'a.npz'
    check_outputs(path, tmp_path / 'new' / 'a.images.json')
    assert list(path.parent.iterdir()) == []
    path.write_text('earlier')
    check_outputs(path)
    assert path.read_text() == 'earlier'


@pytest.mark.parametrize('name, message', [
    ('a.json', 'must end in .npz'), ('file/a.npz', 'cannot write.*another'),
    (f'{"x" * 240}.npz', 'File name too long'), ('pipe.npz', 'not a regular'),
    ('c.npz', "c.npz.parts' must be a folder"),
    ('b.npz', "cannot write '.*b.searched.json', which is a folder")])
def test_check_outputs_names_path_that_fails(tmp_path, name, message):
    (tmp_path / 'file').write_text('')
    os.mkfifo(tmp_path / 'pipe.npz')
    (tmp_path / 'b.searched.json').mkdir()
    (tmp_path / 'c.npz.parts').write_text('')
    with pytest.raises(ValueError, match=message):
        check_outputs(tmp_path / name)


def test_check_outputs_keeps_json_with_annotations(tmp_path):
    path = tmp_path / 'a.images.json'
    path.write_text('{"images": [], "annotations": [{"id": 1}]}')
    with pytest.raises(ValueError, match='would replace.*--ann-file'):
        check_outputs(tmp_path / 'a.npz', path)


def test_check_disk_space_needs_room_for_proposals(tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')(10**9, 0, 10**9)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    check_disk_space(tmp_path / 'a.npz', 118_287, None)
    with pytest.raises(ValueError, match='1000.0 MB free, but.*2800.0 MB'):
        check_disk_space(tmp_path / 'a.npz', 2_000_000, None)
    check_disk_space(tmp_path / 'a.npz', 2_000_000, 5)


def test_check_folder_needs_one_image(tmp_path):
    (tmp_path / '2.jpg').write_text('')
    check_folder(tmp_path, [*IMAGES, dict(id=3, file_name='a\0b\ud800.jpg')])
    with pytest.raises(ValueError, match="none of 1 images.*'1.jpg'"):
        check_folder(tmp_path, IMAGES[:1])
