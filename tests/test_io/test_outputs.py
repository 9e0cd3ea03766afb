import errno
import os

import pytest

from univip_mm.io.atomic import atomic_write
from univip_mm.io.outputs import check_output_file, check_output_folder

CHECKS = (check_output_file, check_output_folder)


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('name, reason', [
    ('', 'name'), ('a' * 300, 'too long'),
    ('file/a', 'Not a directory|in the place of'),
    ('broken/a', 'broken link|No such file'),
    ('loop/a', 'symbolic links|in the place of'),
    ('file/a/b', 'Not a directory'), ('a\0b', 'null byte'),
    ('/proc/a/b', 'No such file')])
def test_wrong_output_path_is_reported(tmp_path, check, name, reason):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'broken').symlink_to('nowhere/far')
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(ValueError, match=reason) as e:
        check(os.path.join(tmp_path, name) if name else '', '--out')
    assert '--out' in str(e.value) and 'choose another' in str(e.value)


def test_output_file_must_not_be_a_folder(tmp_path):
    for name in tmp_path, f'{tmp_path}/new/':
        with pytest.raises(ValueError, match='not a folder'):
            check_output_file(name, '--out')


def test_output_folder_must_not_be_a_file(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='in the place of a folder'):
        check_output_folder(tmp_path / 'file', 'work_dir')


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('number', [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_folder_that_refuses_files_is_reported(tmp_path, monkeypatch, check,
                                               number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('builtins.open', refuse)
    with pytest.raises(ValueError, match=os.strerror(number)):
        check(tmp_path / 'a', '--out')


def test_device_is_an_output(tmp_path):
    check_output_file('/dev/null', '--out')
    with pytest.raises(ValueError):
        check_output_folder('/dev/null', '--out')


def test_check_of_an_output_changes_nothing(tmp_path):
    path = tmp_path / 'new' / 'file'
    check_output_file(path, '--out')
    assert list((tmp_path / 'new').iterdir()) == []
    path.write_text('old')
    check_output_file(path, '--out')
    check_output_folder(path.parent, 'work_dir')
    assert path.read_text() == 'old'
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('length', [235, 245, 255])
def test_output_name_is_as_long_as_a_written_one(tmp_path, length):
    path = tmp_path / ('a' * length)
    try:
        with atomic_write(path):
            pass
    except OSError:
        with pytest.raises(ValueError, match='too long'):
            check_output_file(path, '--out')
    else:
        check_output_file(path, '--out')
