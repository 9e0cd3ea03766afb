import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from univip_mm.proposals.journal import Journal
from univip_mm.proposals.search import Found

SETTINGS = dict(method='fast', rules=dict(min_size=64))


NAMES = {7: '7.jpg', 9: '9.jpg'}


def boxes(n):
    return np.arange(4 * n).reshape(n, 4) + (0, 0, 80, 80)


def ids_read(journal):
    return sorted(i for i, _ in journal.read(NAMES))


def test_journal_reads_results_of_earlier_process(tmp_path):
    first = Journal(tmp_path / 'a.npz', SETTINGS)
    first.write(7, '7.jpg', Found(boxes(3)))
    first.write(9, '9.jpg', Found(boxes(0), 'not an image'))
    # Not closed, as after a kill.
    found = list(Journal(tmp_path / 'a.npz', SETTINGS).read(NAMES))
    assert [(i, result.problem) for i, result in found] == [
        (7, None), (9, 'not an image')]
    assert np.array_equal(found[0][1].boxes, boxes(3))
    assert found[1][1].boxes.shape == (0, 4)


@pytest.mark.parametrize('cut', range(1, 12))
def test_journal_ignores_incomplete_line(tmp_path, cut):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, '7.jpg', Found(boxes(3)))
    journal.write(9, '9.jpg', Found(boxes(1)))
    journal.close()
    path, = journal.folder.glob('*.jsonl')
    path.write_bytes(path.read_bytes()[:-cut])
    assert ids_read(journal) == [7]
    again = Journal(tmp_path / 'a.npz', SETTINGS)
    again.write(9, '9.jpg', Found(boxes(1)))
    assert ids_read(again) == [7, 9]


def test_journal_rejects_other_settings(tmp_path):
    Journal(tmp_path / 'a.npz', SETTINGS)
    with pytest.raises(ValueError, match="method='fast', but now it is "
                       "'quality'.*remove that folder"):
        Journal(tmp_path / 'a.npz', {**SETTINGS, 'method': 'quality'})


def test_journal_of_another_version_is_named(tmp_path):
    path = Journal(tmp_path / 'a.npz', SETTINGS).folder / 'settings.json'
    path.write_text(json.dumps(SETTINGS))  # before its format had a number
    with pytest.raises(ValueError, match='finish it with the earlier version'):
        Journal(tmp_path / 'a.npz', SETTINGS)


@pytest.mark.parametrize('content', [
    '{"method": "fa', '[1, 2]', '', 'NaN', '[' * 100_000, None])
def test_journal_rejects_odd_settings(tmp_path, content):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, '7.jpg', Found(boxes(3)))
    path = journal.folder / 'settings.json'
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(ValueError, match='settings.json.*remove that folder|'
                       'unfinished search: move that folder'):
        Journal(tmp_path / 'a.npz', SETTINGS)


@pytest.mark.timeout(20)
def test_journal_neither_follows_links_nor_waits(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, '7.jpg', Found(boxes(3)))
    journal.write(9, '9.jpg', Found(boxes(3)))
    path, = journal.folder.glob('*.jsonl')
    path.rename(tmp_path / 'other')
    path.symlink_to(tmp_path / 'other')
    os.mkfifo(journal.folder / 'pipe.jsonl')
    assert ids_read(journal) == []
    (journal.folder / 'lock').symlink_to(tmp_path / 'target')
    with pytest.raises(OSError, match='lock'):
        journal.lock()
    (journal.folder / 'lock').unlink()
    os.mkfifo(journal.folder / 'lock')
    with pytest.raises(OSError, match='lock'):
        journal.lock()
    (journal.folder / 'settings.json').unlink()
    os.mkfifo(journal.folder / 'settings.json')
    with pytest.raises(ValueError, match='settings.json'):
        Journal(tmp_path / 'a.npz', SETTINGS)
    (tmp_path / 'b.npz.parts').symlink_to(journal.folder)
    with pytest.raises(ValueError, match='is a link'):
        Journal(tmp_path / 'b.npz', SETTINGS)
    assert not (tmp_path / 'target').exists()


BOX = [0, 0, 80, 80]


@pytest.mark.parametrize('content', [
    *([7, '7.jpg', odd, None, False] for odd in (
        [float('nan')] * 4, [0., 0., 80., 80.], ['0', '0', '80', '80'],
        BOX[:3], None, [2**31, 0, 2**31 + 80, 80], [0, 0, 10**30, 80],
        [-1, 0, 80, 80], [80, 0, 0, 80],
        [0, 0, 63, 80])),  # below min_size
    *([odd, '7.jpg', BOX, None, False] for odd in (8, '7', 7., [7], True)),
    *([7, odd, BOX, None, False] for odd in ('a/7.jpg', 7, None, ['7.jpg'])),
    [7, '7.jpg', BOX, 5, False], [7, '7.jpg', BOX, None, 0],
    [7, '7.jpg', BOX, None], [7, '7.jpg', BOX, None, False, 1],
    [7, BOX, None], 7, None, 'abcde', dict.fromkeys('abcde')])
def test_journal_ignores_odd_content(tmp_path, content):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(9, '9.jpg', Found(boxes(1)))
    text = json.dumps(content, separators=(',', ':')).encode()[:-1]
    with open(next(journal.folder.glob('*.jsonl')), 'ab') as file:
        file.write(b'%s,%d]\n' % (text, zlib.crc32(text)))
    assert ids_read(journal) == [9]


@pytest.mark.parametrize('at', range(0, 40, 3))
def test_journal_detects_any_changed_byte(tmp_path, at):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, '7.jpg', Found(boxes(3)))
    journal.write(9, '9.jpg', Found(boxes(2)))
    path, = journal.folder.glob('*.jsonl')
    content = bytearray(path.read_bytes())
    content[at] ^= 1  # another digit, for example
    path.write_bytes(content)
    assert ids_read(journal) == [9]


def test_journal_ignores_damaged_line(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, '7.jpg', Found(boxes(3)))
    journal.close()
    path, = journal.folder.glob('*.jsonl')
    path.write_bytes(b'\0\xff\0\n' + path.read_bytes())
    assert ids_read(journal) == [7]


def test_lock_rejects_second_search(tmp_path):
    first = Journal(tmp_path / 'a.npz', SETTINGS)
    first.lock()
    with pytest.raises(ValueError, match='another search is running'):
        Journal(tmp_path / 'a.npz', SETTINGS).lock()
    first.remove()
    Journal(tmp_path / 'a.npz', SETTINGS).lock()


def test_folder_of_the_user_is_neither_used_nor_removed(tmp_path):
    folder = tmp_path / 'a.npz.parts'
    folder.mkdir()
    (folder / 'images.json').write_text('mine')
    with pytest.raises(ValueError, match='a.npz.parts.*move that folder'):
        Journal(tmp_path / 'a.npz', SETTINGS)
    assert (folder / 'images.json').read_text() == 'mine'
    (folder / 'images.json').unlink()
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    (folder / 'notes.txt').write_text('mine')
    journal.remove()
    assert os.listdir(folder) == ['notes.txt']


def test_remove_deletes_folder(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(1, '1.jpg', Found(boxes(1)))
    journal.close()
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_removal_that_is_killed_does_not_block_the_folder(
        tmp_path, monkeypatch):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.lock()
    journal.write(7, '7.jpg', Found(boxes(3)))
    removed = []
    unlink = Path.unlink

    def kill_at_second(path, **kwargs):
        removed.append(path.name)
        if len(removed) % 2 == 0:
            raise KeyboardInterrupt
        unlink(path, **kwargs)
    monkeypatch.setattr(Path, 'unlink', kill_at_second)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            journal.remove()
        journal = Journal(tmp_path / 'a.npz', SETTINGS)
        journal.lock()
    assert len(removed) == 4 and 'lock' in removed
