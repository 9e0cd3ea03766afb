import os
import stat

import pytest

from univip_mm.io import atomic
from univip_mm.io.atomic import (
    atomic_write,
    open_to_append,
    replace_durably,
)


@pytest.mark.parametrize('mode, content', [
    ('wb', b'\x00\xff'), ('w', 'größer')])
def test_atomic_write_writes_bytes_and_text(tmp_path, mode, content):
    path = tmp_path / 'new' / 'file'
    with atomic_write(path, mode) as file:
        file.write(content)
    expected = content if mode == 'wb' else content.encode('utf-8')
    assert path.read_bytes() == expected
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_replaces_file_at_end(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with atomic_write(str(path), 'w') as file:
        file.write('new')
        file.flush()
        assert path.read_text() == 'old'
        part, = set(tmp_path.iterdir()) - {path}
        assert part.name.startswith('.file.') and part.suffix == '.part'
    assert path.read_text() == 'new'


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_atomic_write_keeps_old_file_after_error(tmp_path, error):
    path = tmp_path / 'file'
    path.write_text('old')
    with pytest.raises(error), atomic_write(path, 'w') as file:
        file.write('new')
        raise error
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_replaces_link_not_target(tmp_path):
    target, link = tmp_path / 'target', tmp_path / 'link'
    target.write_text('old')
    link.symlink_to(target)
    with atomic_write(link, 'w') as file:
        file.write('new')
    assert target.read_text() == 'old' and not link.is_symlink()


@pytest.mark.parametrize('umask, mode', [(0o022, 0o644), (0o077, 0o600)])
def test_atomic_write_obeys_umask(tmp_path, umask, mode):
    path = tmp_path / 'file'
    before = os.umask(umask)
    try:
        with atomic_write(path):
            pass
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_atomic_write_does_not_replace_a_pipe(tmp_path):
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(path, 'w') as file:
        file.write('new')
    assert os.read(reader, 9) == b'new' and path.is_fifo()
    os.close(reader)
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_does_not_replace_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path):
        pass


def test_replace_durably_syncs_before_rename(tmp_path, monkeypatch):
    part, path = tmp_path / 'part', tmp_path / 'file'
    part.write_text('new')
    synced = []

    def fsync(descriptor):
        assert os.fstat(descriptor).st_ino == part.stat().st_ino
        assert not path.exists()
        synced.append(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)
    replace_durably(part, path)
    assert len(synced) == 1
    assert path.read_text() == 'new' and not part.exists()


def test_replace_durably_names_missing_file(tmp_path):
    with pytest.raises(OSError, match='part'):
        replace_durably(tmp_path / 'part', tmp_path / 'file')


def test_atomic_write_does_not_follow_a_planted_link(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.secrets, 'token_hex', lambda size: '0')
    target = tmp_path / 'target'
    target.write_text('precious')
    (tmp_path / '.file.0.part').symlink_to(target)
    with pytest.raises(FileExistsError), atomic_write(tmp_path / 'file'):
        pass
    assert target.read_text() == 'precious'


@pytest.mark.timeout(20)
@pytest.mark.parametrize('kind', ['link', 'dangling link', 'pipe', 'folder'])
def test_open_to_append_writes_to_regular_files_only(tmp_path, kind):
    path, target = tmp_path / 'file', tmp_path / 'target'
    if kind == 'link':
        target.write_text('precious')
    if 'link' in kind:
        path.symlink_to(target)
    elif kind == 'pipe':
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError):
        open_to_append(path)
    assert kind == 'link' or not target.exists()
    assert kind != 'link' or target.read_text() == 'precious'


def test_open_to_append_keeps_the_content(tmp_path):
    for text in 'ä', 'b':
        with open_to_append(tmp_path / 'file') as file:
            file.write(text)
    assert (tmp_path / 'file').read_text('utf-8') == 'äb'
