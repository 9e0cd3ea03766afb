"""Tests of the lists of files in archives."""
import io
import os
import stat
import tarfile
import unicodedata
import zipfile

import pytest

from univip_mm.io.archive import Archive
from univip_mm.io.archive_members import tar_members, zip_members


def read_all(path):
    archive = Archive(str(path))
    return {name: archive.read(name) for name in archive.names()}


def add_to_tar(file, name, data=b'', **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    file.addfile(info, io.BytesIO(data))


def test_archives_never_name_a_file_outside(tmp_path):
    names = ['/etc/passwd', '../../up.jpg', 'a/../b.jpg', './/c.jpg']
    expected = ['../../up.jpg', 'b.jpg', 'c.jpg', 'etc/passwd']
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        for name in names:
            file.writestr(name, name)
    with tarfile.open(tmp_path / 'x.tar', 'w') as file:
        for name in names:
            add_to_tar(file, name, name.encode())
    for path in (tmp_path / 'x.zip', tmp_path / 'x.tar'):
        files = read_all(path)
        assert sorted(files) == expected
        assert files['etc/passwd'] == b'/etc/passwd'  # the archive's own


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_archives_read_the_last_of_equal_names(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        for data in ('old', 'new'):
            file.writestr('1.jpg', data)
    with tarfile.open(tmp_path / 'x.tar', 'w') as file:
        for data in (b'old', b'new'):
            add_to_tar(file, '1.jpg', data)
    for path in (tmp_path / 'x.zip', tmp_path / 'x.tar'):
        assert read_all(path) == {'1.jpg': b'new'}


def test_zip_names_are_those_of_other_programs(tmp_path):
    composed = unicodedata.normalize('NFC', 'ü.jpg')
    decomposed = unicodedata.normalize('NFD', 'ü.jpg')

    class Unflagged(zipfile.ZipInfo):
        """Entry as by programs that set no flag for UTF-8."""
        encoding = 'utf-8'

        def _encodeFilenameFlags(self):  # noqa: N802
            return self.filename.encode(self.encoding), 0

    entries = [zipfile.ZipInfo(composed), Unflagged(decomposed),
               Unflagged('é.jpg'), zipfile.ZipInfo('a/日本.jpg')]
    entries[2].encoding = 'cp437'
    windows = zipfile.ZipInfo('b/c.jpg')
    windows.filename = 'b\\c.jpg'
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        for i, entry in enumerate([*entries, windows]):
            file.writestr(entry, str(i))
    assert read_all(tmp_path / 'x.zip') == {
        composed: b'0', decomposed: b'1', 'é.jpg': b'2', 'a/日本.jpg': b'3',
        'b/c.jpg': b'4'}


def test_zip_with_large_offsets_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, 'ZIP64_LIMIT', 10)
    monkeypatch.setattr(zipfile, 'ZIP_FILECOUNT_LIMIT', 1)
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        for i in range(3):
            with file.open(f'{i}.jpg', 'w', force_zip64=True) as entry:
                entry.write(bytes([i]) * 30)
    assert b'PK\6\6' in (tmp_path / 'x.zip').read_bytes()  # zip64's directory
    assert read_all(tmp_path / 'x.zip') == {
        f'{i}.jpg': bytes([i]) * 30 for i in range(3)}


@pytest.mark.parametrize('kind, reason', [
    (zipfile.ZIP_BZIP2, 'method 12'), (zipfile.ZIP_LZMA, 'method 14'),
    ('encrypted', 'encrypted'), ('cut', 'cut short'), ('empty', 'cut short')])
def test_zip_that_cannot_be_read_is_refused(tmp_path, kind, reason):
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w', kind if isinstance(kind, int) else 0) as f:
        f.writestr('1.jpg', b'data' * 100)
    data = bytearray(path.read_bytes())
    if kind == 'encrypted':
        data[data.index(b'PK\1\2') + 8] |= 1
    path.write_bytes(data[:dict(cut=-30, empty=0).get(kind, len(data))])
    with pytest.raises(ValueError, match=reason) as e:
        Archive(str(path))
    assert str(path) in str(e.value) and '\n' not in str(e.value)


def test_links_are_read_or_counted(tmp_path):
    with tarfile.open(tmp_path / 'x.tar', 'w') as file:
        add_to_tar(file, 'a', type=tarfile.DIRTYPE)
        add_to_tar(file, 'a/1.jpg', b'one')
        add_to_tar(file, '2.jpg', type=tarfile.LNKTYPE, linkname='a/1.jpg')
        add_to_tar(file, '3.jpg', type=tarfile.SYMTYPE, linkname='a/1.jpg')
        add_to_tar(file, '4.jpg', type=tarfile.LNKTYPE, linkname='no.jpg')
        add_to_tar(file, '5.jpg', type=tarfile.FIFOTYPE)
    assert read_all(tmp_path / 'x.tar') == {'a/1.jpg': b'one',
                                            '2.jpg': b'one'}
    link = zipfile.ZipInfo('2.jpg')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
        file.writestr('a/', '')
        file.writestr('1.jpg', 'one')
        file.writestr(link, '1.jpg')
    assert read_all(tmp_path / 'x.zip') == {'1.jpg': b'one'}
    with open(tmp_path / 'x.tar', 'rb') as file:
        assert tar_members(file, 'x.tar')[1].startswith('has 3 links or')
    with open(tmp_path / 'x.zip', 'rb') as file:
        assert zip_members(file, 'x.zip')[1].startswith('has 1 links or')


@pytest.mark.parametrize('at', [1024, 2048])  # the second, a long name
@pytest.mark.parametrize('size', [
    1 << 90, 1 << 63, 1 << 62, 1 << 50, 0x80 << 88, (1 << 96) - 1024])
def test_tar_with_an_impossible_size_is_cut_short(tmp_path, at, size):
    path = tmp_path / 'x.tar'
    with tarfile.open(path, 'w', format=tarfile.GNU_FORMAT) as file:
        for name in ('1.jpg', '2.jpg', 'x' * 200, '4.jpg'):
            add_to_tar(file, name, b'data')
    data = bytearray(path.read_bytes())
    data[at + 124:at + 136] = (size | 0x80 << 88).to_bytes(12, 'big')
    data[at + 148:at + 156] = b' ' * 8
    data[at + 148:at + 155] = b'%06o\0' % sum(data[at:at + 512])
    path.write_bytes(data)
    archive = Archive(str(path))
    assert archive.read('1.jpg') == b'data'
    assert 'damaged or cut short after' in archive.remarks[0]


def test_tar_that_cannot_be_read_now_is_an_error(tmp_path):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError(5, 'Input/output error')

    with pytest.raises(OSError, match='Input/output error'):
        tar_members(Broken(b'x' * 5000), 'x.tar')


def test_tar_that_is_damaged_is_reported(tmp_path):
    path = tmp_path / 'x.tar'
    with tarfile.open(path, 'w') as file:
        for i in range(3):
            add_to_tar(file, f'{i}.jpg', bytes([i]) * 600)
    good = path.read_bytes()
    for data, number in ((good, 3), (good[:4608], 3), (good[:3072], 2),
                         (good[:1000], 1), (good[:3100], 2),
                         (good[:3072] + b'x' * 512 + good[3584:], 2)):
        path.write_bytes(data)
        with open(path, 'rb') as file:
            members, remark = tar_members(file, 'x.tar')
        assert len(members) == number
        assert ('cut short after' in remark) == (data != good)
    for data in (b'', b'no tar' * 200):
        path.write_bytes(data)
        with open(path, 'rb') as file, pytest.raises(
                ValueError, match='is not an uncompressed tar'):
            tar_members(file, 'x.tar')
    os.remove(path)
    with tarfile.open(path, 'w'):  # empty
        pass
    assert read_all(path) == {}
