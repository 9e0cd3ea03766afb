import json

import numpy as np
import pytest

from univip_mm.proposals.journal import Journal

SETTINGS = dict(method='fast', rules=dict(min_size=64))


def boxes(n):
    return np.arange(4 * n).reshape(n, 4)


def test_journal_reads_results_of_earlier_process(tmp_path):
    first = Journal(tmp_path / 'a.npz', SETTINGS)
    first.write(7, boxes(3), None)
    first.write(9, boxes(0), 'not an image')
    # Not closed, as after a kill.
    found = list(Journal(tmp_path / 'a.npz', SETTINGS).read())
    assert [(i, problem) for i, _, problem in found] == [
        (7, None), (9, 'not an image')]
    assert np.array_equal(found[0][1], boxes(3))
    assert found[1][1].shape == (0, 4)


@pytest.mark.parametrize('cut', range(1, 12))
def test_journal_ignores_incomplete_line(tmp_path, cut):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, boxes(3), None)
    journal.write(9, boxes(1), None)
    journal.close()
    path, = journal.folder.glob('*.jsonl')
    path.write_bytes(path.read_bytes()[:-cut])
    assert [i for i, _, _ in journal.read()] == [7]
    again = Journal(tmp_path / 'a.npz', SETTINGS)
    again.write(9, boxes(1), None)
    assert sorted(i for i, _, _ in again.read()) == [7, 9]


def test_journal_rejects_other_settings(tmp_path):
    Journal(tmp_path / 'a.npz', SETTINGS)
    with pytest.raises(ValueError, match='method=fast, but now it is quality'
                       '.*remove that folder'):
        Journal(tmp_path / 'a.npz', {**SETTINGS, 'method': 'quality'})


def test_journal_rewrites_incomplete_settings(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    path = journal.folder / 'settings.json'
    path.write_text(path.read_text()[:9])
    Journal(tmp_path / 'a.npz', SETTINGS)
    assert json.loads(path.read_text()) == SETTINGS


def test_journal_ignores_damaged_line(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, boxes(3), None)
    journal.close()
    path, = journal.folder.glob('*.jsonl')
    path.write_bytes(b'\0\xff\0\n' + path.read_bytes())
    assert [i for i, _, _ in journal.read()] == [7]


def test_lock_rejects_second_search(tmp_path):
    first = Journal(tmp_path / 'a.npz', SETTINGS)
    first.lock()
    with pytest.raises(ValueError, match='another search is running'):
        Journal(tmp_path / 'a.npz', SETTINGS).lock()
    first.remove()
    Journal(tmp_path / 'a.npz', SETTINGS).lock()


def test_remove_deletes_folder(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(1, boxes(1), None)
    journal.close()
    journal.remove()
    assert list(tmp_path.iterdir()) == []
