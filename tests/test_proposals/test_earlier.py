import json

import numpy as np
import pytest

from univip_mm.proposals import Search
from univip_mm.proposals.earlier import (
    earlier_results,
    keep_ids,
    path_of_list,
    path_of_searched,
    read_list,
    warn_of_other_folder,
    write_list,
)
from univip_mm.proposals.journal import LIST, Journal
from univip_mm.proposals.result import Result, write_result
from univip_mm.proposals.search import Found

SETTINGS = Search().describe()
BOXES = np.array([[0, 0, 80, 80]], np.int32)


def images(*names, first=1):
    return [dict(id=i, file_name=name) for i, name in enumerate(names, first)]


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / 'a.npz', SETTINGS)


@pytest.fixture
def write(tmp_path, journal):
    """Return a function that writes the files of a finished search."""

    def write(found, problems=()):
        results = {x['id']: Found(BOXES * x['id'], None, x['id'] == 2)
                   for x in found if x['id'] not in problems}
        write_result(
            Result(found, results, dict.fromkeys(problems, 'damaged')),
            tmp_path, tmp_path / 'a.npz', dict(SETTINGS, source='a.json'),
            journal, None)
        return results
    return write


@pytest.fixture
def earlier(tmp_path, journal):
    """Return a function that finds the earlier results of images."""

    def earlier(found, **changes):
        return earlier_results(found, tmp_path / 'a.npz',
                               {**SETTINGS, **changes}, journal)
    return earlier


@pytest.mark.parametrize('lost', ['a.searched.json', f'a.npz.parts/{LIST}'])
def test_earlier_results_come_from_proposal_file(
        tmp_path, write, earlier, lost):
    results = write(images('a.jpg', 'b.jpg', 'c.jpg'), problems=[3])
    (tmp_path / lost).unlink()
    found = earlier([dict(id=9, file_name='new.jpg'),
                     *images('b.jpg', 'c.jpg', first=2)])
    assert found.keys() == {2} and found[2].reduced
    assert np.array_equal(found[2].boxes, results[2].boxes)


@pytest.mark.parametrize('changed', [
    images('b.jpg', 'a.jpg'), images('x/a.jpg', 'x/b.jpg'),
    images('a.jpg', 'b.jpg', first=3)])
def test_earlier_results_of_other_files_do_not_count(
        write, earlier, changed):
    write(images('a.jpg', 'b.jpg'))
    assert earlier(changed) == {}


def test_equal_base_names_in_folders_do_not_count(write, earlier):
    write(images('cat/1.jpg', 'dog/1.jpg', 'dog/2.jpg'))
    assert earlier(images('dog/1.jpg', 'dog/2.jpg', 'dog/3.jpg')) == {}
    assert earlier(images('dog/1.jpg', first=2)).keys() == {2}


def test_proposal_file_without_its_list_does_not_count(
        tmp_path, write, earlier, caplog):
    write(images('a.jpg', 'b.jpg'))
    write_list(path_of_searched(tmp_path / 'a.npz'),
               images('x.jpg', 'b.jpg'), tmp_path)
    (tmp_path / 'a.npz.parts' / LIST).write_text('damaged')
    assert earlier(images('x.jpg', 'b.jpg')) == {}
    assert "a.searched.json' is missing or of another" in caplog.text
    assert earlier(images('a.jpg', 'b.jpg')).keys() == {1, 2}


def test_results_with_other_settings_do_not_count(write, earlier, caplog):
    write(images('a.jpg', 'b.jpg'))
    assert earlier(images('a.jpg', 'b.jpg')).keys() == {1, 2}
    assert caplog.messages == []
    assert earlier(images('a.jpg', 'b.jpg'), top_n=5) == {}
    assert 'was made with top_n None, now 5: all its images' in caplog.text


def test_results_of_another_folder_are_reported(tmp_path, write, caplog):
    write(images('a.jpg', 'b.jpg'))
    (tmp_path / 'link').symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / 'link'):
        warn_of_other_folder(tmp_path / 'a.npz', folder)
    assert caplog.messages == []
    warn_of_other_folder(tmp_path / 'a.npz', tmp_path / 'other')
    message, = caplog.messages
    assert f"results of images below '{tmp_path}'" in message


def test_damaged_proposal_file_is_reported(tmp_path, earlier, caplog):
    (tmp_path / 'a.npz').write_text('damaged')
    assert earlier(images('a.jpg')) == {}
    assert 'a.npz' in caplog.text and 'searched again' in caplog.text


def test_keep_ids_numbers_a_new_folder_in_order(tmp_path):
    found = images('a.jpg', 'b.jpg')
    assert keep_ids(found, tmp_path / 'a.npz') == found


@pytest.mark.parametrize('path', [
    path_of_list('a.npz'), path_of_searched('a.npz'), f'a.npz.parts/{LIST}'])
def test_keep_ids_follows_names_in_any_list(tmp_path, path):
    (tmp_path / 'a.npz.parts').mkdir()
    write_list(tmp_path / path, images('b.jpg', 'd.jpg', 'z.jpg'), tmp_path)
    numbered = keep_ids(images('a.jpg', 'b.jpg', 'c.jpg', 'd.jpg'),
                        tmp_path / 'a.npz')
    assert [x['id'] for x in numbered] == [4, 1, 5, 2]


def test_keep_ids_gives_no_id_twice(tmp_path):
    write_list(tmp_path / 'a.images.json', images('a.jpg'), tmp_path)
    write_list(tmp_path / 'a.searched.json', images('b.jpg', 'c.jpg'),
               tmp_path)
    numbered = keep_ids(images('a.jpg', 'b.jpg', 'c.jpg'), tmp_path / 'a.npz')
    assert [x['id'] for x in numbered] == [1, 3, 2]


@pytest.mark.parametrize('content', [
    '', '[]', '{"images": 5}', '{"images": [{"id": 1}]}',
    '{"images": [{"id": "1", "file_name": "a.jpg"}]}',
    '{"images": [{"id": [1], "file_name": "a.jpg"}]}'])
def test_read_list_ignores_damaged_list(tmp_path, content):
    (tmp_path / 'a.json').write_text(content)
    assert read_list(tmp_path / 'a.json') == []


def test_lists_keep_names_that_are_not_utf8(tmp_path):
    found = images('\udcff.jpg', 'é\n.jpg')
    write_list(tmp_path / 'a.json', found, tmp_path)
    assert read_list(tmp_path / 'a.json') == found
    assert json.loads((tmp_path / 'a.json').read_bytes())['images'] == found
