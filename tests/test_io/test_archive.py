"""Tests of the files in archives; the standard library is the oracle."""
import io
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest

from univip_mm.io import archive as module
from univip_mm.io.archive import (
    Archive,
    cure_of_folder,
    is_file,
    open_archive,
    split_path,
)
from univip_mm.io.image_folder import list_folder
from univip_mm.io.images import (
    UnreadableImageError,
    read_bytes,
    read_image,
    read_size,
)

FILES = {'a/1.jpg': b'one' * 400, 'a/2.jpg': b'', 'b c/ü.png': os.urandom(900)}

FORK = get_context('fork')
BARRIER = FORK.Barrier(2)


def write(path, files=FILES):
    """Write an archive; every second file of a zip is deflated."""
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as file:
            for i, (name, data) in enumerate(files.items()):
                file.writestr(name, data, zipfile.ZIP_DEFLATED * (i % 2 == 0))
    else:
        with tarfile.open(path, 'w') as file:
            for name, data in files.items():
                info = tarfile.TarInfo(f'./{name}')
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture(params=['x.zip', 'x.tar'])
def path(request, tmp_path):
    yield write(tmp_path / request.param)
    module._OPENED.clear()


def content(path):
    archive = Archive(path)
    return {name: archive.read(name) for name in archive.names()}


def archived(path):
    return {name: open_archive(path).read(name) for name in FILES}


def build_at_once(path):
    """Build the index when the other process builds it too."""
    write_index = Archive._keep

    def wait(archive, data):
        BARRIER.wait(10)
        write_index(archive, data)

    Archive._keep = wait  # of this process
    archive = open_archive(path)
    return {name: archive.size(name) for name in archive.names()}


def test_archive_reads_files_with_new_and_kept_index(path, monkeypatch):
    assert content(path) == FILES
    monkeypatch.setattr(Archive, '_build', None)  # the index is used
    assert content(path) == FILES
    assert is_file(f'{path}/a/1.jpg') and not is_file(f'{path}/a/3.jpg')
    assert not is_file(f'{path}/\ud800.jpg')
    assert not is_file(f'{path}/a') and not is_file(f'{path}/../x.tar/a')
    with pytest.raises(FileNotFoundError, match='3.jpg'):
        Archive(path).read('a/3.jpg')


def test_open_archive_finds_a_changed_archive(path):
    assert open_archive(path).size('a/1.jpg') == 1200
    write(Path(path), dict(FILES, new=b'new'))
    assert open_archive(path).read('new') == b'new'
    assert content(path) == dict(FILES, new=b'new')
    os.remove(path)
    with pytest.raises(FileNotFoundError):
        open_archive(path)


def test_archive_rebuilds_a_damaged_index(path):
    Archive(path)
    index = Path(f'{path}.index')
    good = index.read_bytes()
    for bad in (good[:-1], good[:50], good[:4096] + good[:-4097:-1]):
        index.write_bytes(bad)
        assert content(path) == FILES
        assert index.read_bytes() == good


@pytest.mark.parametrize('kind', ['file', 'folder', 'link', 'no permission'])
def test_archive_keeps_its_index_in_memory(path, kind, monkeypatch):
    index = Path(f'{path}.index')
    own = Path(path).with_name('mine')
    own.write_text('[' * 5000)
    if kind == 'file':
        index.write_text('[' * 5000)
    elif kind == 'folder':
        index.mkdir()
    elif kind == 'link':
        index.symlink_to(own)
    else:
        def refuse(path):
            raise PermissionError(13, 'Permission denied')
        monkeypatch.setattr(module, 'atomic_write', refuse)
    assert content(path) == FILES
    remark, = Archive(path).remarks
    assert f"the index of '{path}' cannot be kept" in remark
    assert own.read_text() == '[' * 5000
    assert kind != 'file' or index.read_text() == '[' * 5000


def test_archive_cut_short(tmp_path):
    tar = write(tmp_path / 'x.tar')
    os.truncate(tar, 512 + 100)
    for _ in range(2):  # also with the kept index
        archive = Archive(tar)
        assert archive.read('a/1.jpg') == FILES['a/1.jpg'][:100]
        assert archive.find('b c/ü.png') is None
        remark, = archive.remarks
        assert "x.tar' is damaged or cut short after 1" in remark


def test_archive_keeps_its_index_with_a_long_path(tmp_path, monkeypatch):
    folder = tmp_path.joinpath(*['ü' * 100] * 9)
    folder.mkdir(parents=True)
    tar = write(folder / 'x.tar')
    os.truncate(tar, 512 + 100)
    remarks = Archive(tar).remarks
    assert f"'{tar}' is damaged or cut short" in remarks[0]
    monkeypatch.setattr(Archive, '_build', None)  # the index is used
    assert Archive(tar).remarks == remarks
    moved = shutil.copytree(folder, tmp_path / 'moved') / 'x.tar'
    assert f"'{moved}' is damaged" in Archive(str(moved)).remarks[0]


@pytest.mark.parametrize('change', [
    lambda head: head.pop('remark'), lambda head: head.update(files=1 << 80)])
def test_archive_rebuilds_an_odd_index(path, change):
    Archive(path)
    index = Path(f'{path}.index')
    good = index.read_bytes()
    head = json.loads(good[:4096])
    change(head)
    index.write_bytes(json.dumps(head).encode().ljust(4096) + good[4096:])
    assert content(path) == FILES and index.read_bytes() == good


def test_archive_rebuilds_an_index_with_huge_numbers(path):
    Archive(path)
    index = Path(f'{path}.index')
    good = index.read_bytes()
    data = bytearray(good[4096:])
    data[24:32] = b'\xff' * 8  # the first row's start of the data
    head = json.loads(good[:4096])
    head['sum'] = zlib.crc32(data)
    index.write_bytes(json.dumps(head).encode().ljust(4096) + data)
    assert content(path) == FILES and index.read_bytes() == good


def test_archive_with_damaged_data(tmp_path):
    path = write(tmp_path / 'x.zip')
    data = bytearray(Path(path).read_bytes())
    data[30 + len('a/1.jpg')] = 0xff  # of the deflated data
    Path(path).write_bytes(data)
    with pytest.raises(OSError, match="damaged zip: .*'.*x.zip/a/1.jpg'"):
        Archive(path).read('a/1.jpg')
    data[:4] = b'none'  # the local header
    Path(path).write_bytes(data)
    with pytest.raises(OSError, match='damaged zip'):
        Archive(path).read('a/1.jpg')


def test_archive_is_built_and_read_by_several_processes(path):
    expected = {name: len(data) for name, data in FILES.items()}
    with ProcessPoolExecutor(2, FORK) as pool:
        assert list(pool.map(build_at_once, [path] * 2)) == [expected] * 2
    archive = open_archive(path)  # the file is shared after a fork
    with ProcessPoolExecutor(2, FORK) as pool:
        assert list(pool.map(archived, [path] * 20)) == [FILES] * 20
    assert archive.read('a/1.jpg') == FILES['a/1.jpg']
    names = sorted(os.listdir(os.path.dirname(path)))
    assert names == [os.path.basename(path), f'{os.path.basename(path)}.index']


def test_archive_reads_no_more_bytes_than_it_has(tmp_path, monkeypatch):
    rows = {'1.jpg': (100, 1 << 61, 5, 0), '2.jpg': (1 << 61, 9, 5, 0)}
    monkeypatch.setattr(module, 'tar_members', lambda *_: (rows, ''))
    archive = Archive(write(tmp_path / 'x.tar'))
    assert archive.read('1.jpg') == Path(archive.path).read_bytes()[100:]
    assert archive.read('2.jpg') == b''


def test_archive_finds_each_of_many_files(tmp_path, monkeypatch):
    rows = {f'{i}.jpg': (i, i + 1, i + 2, 0) for i in range(20000)}
    monkeypatch.setattr(module, 'tar_members', lambda *_: (rows, ''))
    for _ in range(2):
        archive = Archive(write(tmp_path / 'x.tar'))
        assert [archive.size(f'{i}.jpg') for i in range(0, 20000, 7)] == list(
            range(2, 20002, 7))
        assert len(archive) == 20000 and archive.find('20000.jpg') is None


def test_archive_tells_names_of_equal_hash_apart(path, monkeypatch):
    monkeypatch.setattr(module, '_hash', lambda name: np.uint64(5))
    assert content(path) == FILES
    assert Archive(path).find('a/3.jpg') is None


def test_split_path_keeps_folders_with_the_name_of_an_archive(tmp_path):
    (tmp_path / 'x.zip').mkdir()
    assert split_path(tmp_path / 'x.zip' / '1.jpg') is None
    inner = write(tmp_path / 'x.zip' / 'y.TAR')
    assert split_path(f'{inner}//a/./1.jpg') == (inner, 'a/1.jpg')
    assert read_bytes(f'{inner}/a/1.jpg') == FILES['a/1.jpg']
    assert split_path('/data/1.jpg') is split_path('no.zip/1.jpg') is None


@pytest.mark.parametrize('suffix', ['tar.gz', 'tgz', 'tar.xz'])
def test_archive_compressed_as_a_whole_is_refused(tmp_path, suffix):
    path = tmp_path / f'x.{suffix}'
    with tarfile.open(path, 'w:xz' if suffix[-2:] == 'xz' else 'w:gz'):
        pass
    with pytest.raises(ValueError, match=r'decompress it to a \.tar'):
        list_folder(path)
    path.rename(path.with_name('y.tar'))
    with pytest.raises(ValueError, match='is not an uncompressed tar'):
        list_folder(path.with_name('y.tar'))


def test_cure_names_the_folder_with_an_image(path, tmp_path):
    def cure(folder, name):
        return cure_of_folder(folder, name, '--x')

    assert cure(path, '1.jpg') == f"set --x to '{path}/a'"
    assert cure(f'{path}/elsewhere', 'a/1.jpg') == f"set --x to '{path}'"
    assert cure(path, '.jpg') == cure(tmp_path, '1.jpg') == 'check --x'
    assert cure(tmp_path / 'b.zip/c', '1.jpg') == (
        f"'{tmp_path}/b.zip' does not exist, check --x")


def test_archived_image_that_is_too_large_is_refused(path, monkeypatch):
    monkeypatch.setattr('univip_mm.io.images.MAX_BYTES', 1000)
    with pytest.raises(UnreadableImageError):
        read_bytes(f'{path}/a/1.jpg')
    assert read_bytes(f'{path}/b c/ü.png') == FILES['b c/ü.png']
    assert read_size(f'{path}/b c/ü.png') is None


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
        assert [x['file_name'] for x in list_folder(path)['images']] == [
            f"images/{x['file_name']}" for x in expected['images']]
        for image in expected['images']:
            np.testing.assert_array_equal(
                read_image(f"{path}/images/{image['file_name']}"),
                read_image(folder / image['file_name']))
        with pytest.raises(FileNotFoundError, match='no image below'):
            list_folder(f'{path}/elsewhere')
    with zipfile.ZipFile(tmp_path / 'up.zip', 'w') as file:
        for name in ('../up.jpg', 'C:/up.jpg', '.', 'Q.jpg', 'b.jpg'):
            file.writestr(name, data)
    zipped = (tmp_path / 'up.zip').read_bytes()  # zipfile reads '' for \\0
    (tmp_path / 'up.zip').write_bytes(zipped.replace(b'Q.jpg', b'\0.jpg'))
    assert [x['file_name'] for x in list_folder(tmp_path / 'up.zip')['images']
            ] == ['b.jpg']
