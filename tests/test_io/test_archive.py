"""Tests of the files in archives; the standard library is the oracle."""
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from univip_mm.io import archive as module
from univip_mm.io.archive import Archive, is_file, split_path
from univip_mm.io.image_folder import list_folder
from univip_mm.io.images import read_image

FILES = {'a/1.jpg': b'one' * 400, 'a/2.jpg': b'', 'b c/ü.png': os.urandom(900)}


def write(path):
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as file:
            for i, (name, data) in enumerate(FILES.items()):
                file.writestr(name, data, zipfile.ZIP_DEFLATED * (i % 2 == 0))
    else:
        folder = path.with_name('files')
        for name, data in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        with tarfile.open(path, 'w', format=tarfile.GNU_FORMAT) as file:
            for name in FILES:
                file.add(folder / name, f'./{name}')
    return str(path)


@pytest.fixture(params=['x.zip', 'x.tar'])
def path(request, tmp_path):
    yield write(tmp_path / request.param)
    module._OPENED.clear()


def test_archive_reads_the_files_with_a_new_and_a_kept_index(path):
    for _ in range(2):
        archive = Archive(path)
        assert {name: archive.read(name) for name in archive.names()} == FILES
    assert is_file(f'{path}/a/1.jpg') and not is_file(f'{path}/a/3.jpg')
    with pytest.raises(FileNotFoundError, match='3.jpg'):
        archive.read('a/3.jpg')


def test_archive_rebuilds_the_index_of_a_changed_archive(path):
    Archive(path)
    FILES['new.jpg'] = b'new'
    try:
        write(Path(path))
        assert Archive(path).read('new.jpg') == b'new'
    finally:
        del FILES['new.jpg']


def test_archive_ignores_a_damaged_index(path):
    Archive(path)
    for data in (b'', b'x' * 5000):
        with open(f'{path}.index', 'wb') as file:
            file.write(data)
        assert Archive(path).read('a/1.jpg') == FILES['a/1.jpg']


def test_archive_cut_short(tmp_path, caplog):
    tar = write(tmp_path / 'x.tar')
    os.truncate(tar, 512 + 100)
    assert Archive(tar).read('a/1.jpg') == FILES['a/1.jpg'][:100]
    assert Archive(tar).find('b c/ü.png') is None
    assert 'cut short' in caplog.text
    path = write(tmp_path / 'x.zip')
    os.truncate(path, 600)
    with pytest.raises(ValueError, match='cut short'):
        Archive(path)


def test_split_path_keeps_folders_with_the_name_of_an_archive(tmp_path):
    (tmp_path / 'x.zip').mkdir()
    assert split_path(tmp_path / 'x.zip' / '1.jpg') is None
    assert split_path('/data/1.jpg') is None


def test_archive_is_listed_and_read_like_its_folder(tmp_path):
    folder = tmp_path / 'images'
    (folder / 'a').mkdir(parents=True)
    for i, name in enumerate(('1.jpg', 'a/2.png', 'a/.3.jpg', 'x.txt')):
        pixels = np.full((8 + i, 9, 3), 90, np.uint8)
        data = cv2.imencode('.jpg', pixels)[1].tobytes()
        (folder / name).write_bytes(data)
    expected = list_folder(folder)
    for kind in ('zip', 'tar'):
        path = shutil.make_archive(str(tmp_path / kind), kind, tmp_path,
                                   'images')
        assert list_folder(f'{path}/images') == expected
        for image in expected['images']:
            np.testing.assert_array_equal(
                read_image(f"{path}/images/{image['file_name']}"),
                read_image(folder / image['file_name']))
