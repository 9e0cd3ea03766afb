import json

import numpy as np
import pytest

from univip_mm.proposals.journal import Journal

SETTINGS = dict(method='fast', rules=dict(min_size=64))


def boxes(n):
    return np.arange(4 * n).reshape(n, 4)


def test_what_was_written_is_read_by_the_next_one(tmp_path):
    first = Journal(tmp_path / 'a.npz', SETTINGS)
    first.write(7, boxes(3), None)
    first.write(9, boxes(0), 'not an image')
    # No close: a killed process has none.
    found = list(Journal(tmp_path / 'a.npz', SETTINGS).read())
    assert [(i, problem) for i, _, problem in found] == [
        (7, None), (9, 'not an image')]
    assert np.array_equal(found[0][1], boxes(3))
    assert found[1][1].shape == (0, 4)


@pytest.mark.parametrize('cut', range(1, 12))
def test_line_that_a_kill_cut_off_does_not_count(tmp_path, cut):
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


def test_other_settings_are_told_by_name_with_the_cure(tmp_path):
    Journal(tmp_path / 'a.npz', SETTINGS)
    with pytest.raises(ValueError, match='method=fast, but now it is quality'
                       '.*remove that folder'):
        Journal(tmp_path / 'a.npz', {**SETTINGS, 'method': 'quality'})


def test_settings_that_a_kill_cut_off_are_written_anew(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    path = journal.folder / 'settings.json'
    path.write_text(path.read_text()[:9])
    Journal(tmp_path / 'a.npz', SETTINGS)
    assert json.loads(path.read_text()) == SETTINGS


def test_line_that_a_power_cut_damaged_does_not_count(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(7, boxes(3), None)
    journal.close()
    path, = journal.folder.glob('*.jsonl')
    path.write_bytes(b'\0\xff\0\n' + path.read_bytes())
    assert [i for i, _, _ in journal.read()] == [7]


def test_another_search_of_the_same_name_is_told(tmp_path):
    first = Journal(tmp_path / 'a.npz', SETTINGS)
    first.lock()
    with pytest.raises(ValueError, match='another search is at work'):
        Journal(tmp_path / 'a.npz', SETTINGS).lock()
    first.remove()
    Journal(tmp_path / 'a.npz', SETTINGS).lock()


def test_removed_leaves_nothing(tmp_path):
    journal = Journal(tmp_path / 'a.npz', SETTINGS)
    journal.write(1, boxes(1), None)
    journal.close()
    journal.remove()
    assert list(tmp_path.iterdir()) == []
