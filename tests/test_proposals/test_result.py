import numpy as np
import pytest

from univip_mm.io.coco_json import read_coco
from univip_mm.proposals import ProposalFile, Search, result
from univip_mm.proposals.earlier import earlier_results
from univip_mm.proposals.journal import Journal
from univip_mm.proposals.result import Result, collect, write_result
from univip_mm.proposals.search import Found

META = dict(Search().describe(), source='a.json')
BOXES = np.array([[0, 0, 80, 80]], np.int32)
IMAGES = [dict(id=i, file_name=f'{i}.jpg') for i in (3, 1, 2)]
NAMES = {i: f'{i}.jpg' for i in (1, 2, 3)}


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / 'a.npz', Search().describe())


@pytest.fixture
def finished():
    return Result(IMAGES, {1: Found(BOXES), 3: Found(BOXES * 2, None, True)},
                  {2: 'damaged\t1'})


def test_collect_joins_earlier_results_and_journal(journal):
    journal.write(1, '1.jpg', Found(BOXES[:0], 'damaged'))
    journal.write(1, '1.jpg', Found(BOXES))  # read in the second attempt
    journal.write(2, '2.jpg', Found(BOXES[:0], 'damaged'))
    found = collect(IMAGES, {3: Found(BOXES * 2)}, journal)
    assert found.results.keys() == {1, 3}
    assert found.unreadable == {'2.jpg': 'damaged'}
    with pytest.raises(ValueError, match='lacks the results of 1 images'):
        collect(IMAGES, {}, journal)


def test_write_result_writes_unreadable_images(
        tmp_path, journal, finished):
    write_result(finished, tmp_path, tmp_path / 'a.npz', META, journal, None)
    file = ProposalFile(tmp_path / 'a.npz')
    assert list(file) == [1, 2, 3] and len(file[2]) == 0
    assert (file.meta['unreadable'], file.meta['reduced']) == ([2], [3])
    text = (tmp_path / 'a.unreadable.txt').read_text()
    assert text == '2.jpg\tdamaged\\t1\n'


def test_small_images_leave_meta_without_reduced(tmp_path, journal):
    results = {i: Found(BOXES) for i in NAMES}
    write_result(Result(IMAGES, results, {}), tmp_path, tmp_path / 'a.npz',
                 META, journal, None)
    assert list(ProposalFile(tmp_path / 'a.npz').meta) == [
        'format', 'version', *META, 'image_list', 'unreadable']


class Killed(Exception):
    pass


@pytest.mark.parametrize('step', range(5))
def test_kill_between_two_files_loses_nothing(
        tmp_path, journal, finished, monkeypatch, step):
    out, list_file = tmp_path / 'a.npz', tmp_path / 'a.images.json'
    old = Result(IMAGES[:2], {1: Found(BOXES), 3: Found(BOXES)}, {})
    write_result(old, tmp_path, out, META, journal, list_file)
    names = ['write_list', '_write_proposals', 'write_list',
             '_write_unreadable']
    calls = []

    def killed_at(name):
        function = getattr(result, name)

        def call(*args):
            if len(calls) == step:
                raise Killed
            calls.append(name)
            function(*args)
        monkeypatch.setattr(result, name, call)

    for name in set(names):
        killed_at(name)
    changed = Result([*IMAGES, dict(id=9, file_name='9.jpg')],
                     {**finished.results, 9: Found(BOXES)},
                     finished.problems)
    try:
        write_result(changed, tmp_path, out, META, journal, list_file)
    except Killed:
        assert calls == names[:step]
    monkeypatch.undo()
    # The journal has only image 9, because 1 and 3 were found before.
    journal.write(9, '9.jpg', Found(BOXES))
    images = [*IMAGES[:2], dict(id=9, file_name='9.jpg'),
              dict(id=10, file_name='2.jpg')]
    found = earlier_results(images, out, Search().describe(), journal)
    assert found.keys() == {1, 3, 9}
    done = Result(images, found, {10: 'damaged'})
    write_result(done, tmp_path, out, META, journal, list_file)
    assert read_coco(list_file)['images'] == images[:3]
    assert list(ProposalFile(out)) == [1, 3, 9]
