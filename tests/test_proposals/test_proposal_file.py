import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from univip_mm.proposals import ProposalFile, write_proposals

box_arrays = st.integers(0, 5).flatmap(
    lambda n: arrays(np.int32, (n, 4), elements=st.integers(0, 40_000)))


@given(st.dictionaries(st.integers(0, 10**12), box_arrays, max_size=20))
def test_proposal_file_returns_written_boxes(tmp_path_factory, boxes):
    path = tmp_path_factory.mktemp('p') / 'a.npz'
    write_proposals(path, boxes, dict(method='by hand'))
    read = ProposalFile(path)
    assert list(read) == sorted(boxes)
    for image_id, expected in boxes.items():
        assert np.array_equal(read[image_id], expected)
    assert read.counts().tolist() == [len(boxes[i]) for i in sorted(boxes)]
    assert read.meta['method'] == 'by hand'


def test_file_is_npz_of_smallest_dtype(tmp_path):
    write_proposals(tmp_path / 'a.npz', {3: [[0, 1, 2, 32767]]}, {})
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as content:
        assert content['boxes'].dtype == np.int16
        assert content['image_ids'].tolist() == [3]
    write_proposals(tmp_path / 'b.npz', {3: [[0, 1, 2, 32768]]}, {})
    assert ProposalFile(tmp_path / 'b.npz')[3].tolist() == [[0, 1, 2, 32768]]


def test_same_boxes_give_same_bytes(tmp_path):
    a, b = {1: [[0, 0, 5, 5]], 2: [[1, 1, 9, 9]]}, {2: [[1, 1, 9, 9]]}
    b[1] = [[0, 0, 5, 5]]
    write_proposals(tmp_path / 'a.npz', a, dict(method='x'))
    write_proposals(tmp_path / 'b.npz', b, dict(method='x'))
    assert (tmp_path / 'a.npz').read_bytes() == (
        tmp_path / 'b.npz').read_bytes()


def test_pickled_file_is_mapped_again(tmp_path):
    write_proposals(tmp_path / 'a.npz', {i: [[0, 0, i, i]] * 100
                                         for i in range(1, 1000)}, {})
    proposals = ProposalFile(tmp_path / 'a.npz')
    assert isinstance(proposals[5].base.base, np.memmap)
    sent = pickle.dumps(proposals)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent)[5], proposals[5])


def test_failed_write_keeps_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.npz'
    write_proposals(path, {1: [[0, 0, 5, 5]]}, {})

    def full_disk(*args, **kwargs):
        raise OSError('No space left on device')

    monkeypatch.setattr(np, 'savez', full_disk)
    with pytest.raises(OSError):
        write_proposals(path, {1: [[0, 0, 9, 9]]}, {})
    assert ProposalFile(path)[1].tolist() == [[0, 0, 5, 5]]
    assert [p.name for p in tmp_path.iterdir()] == ['a.npz']


def test_renamed_returns_images_of_other_names(tmp_path):
    images = [dict(id=i, file_name=f'a/{i}.jpg') for i in (3, 1, 2)]
    write_proposals(tmp_path / 'a.npz', {1: [], 2: [], 3: []}, {},
                    {x['id']: x['file_name'] for x in images})
    proposals = ProposalFile(tmp_path / 'a.npz')
    assert proposals.renamed(images) == []
    moved = [dict(image, file_name=image['file_name'][2:])
             for image in images]
    assert proposals.renamed(moved[:2]) == []  # other folder, fewer images
    moved[1]['file_name'] = '2.jpg'
    assert proposals.renamed(moved) == [moved[1]]
    write_proposals(tmp_path / 'b.npz', {1: [], 2: [], 3: []}, {})
    assert ProposalFile(tmp_path / 'b.npz').renamed(moved) == []


def test_unknown_image_is_missing(tmp_path):
    write_proposals(tmp_path / 'a.npz', {1: [], 5: []}, {})
    proposals = ProposalFile(tmp_path / 'a.npz')
    assert proposals.missing(np.array([1, 2, 5, 9])).tolist() == [2, 9]
    for image_id in (0, 2, 9):
        with pytest.raises(KeyError):
            proposals[image_id]


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match='generate_proposals'):
        ProposalFile(tmp_path / 'none.npz')


@pytest.mark.parametrize('keep', [0, 10, 300, -1])
def test_incomplete_file_raises(tmp_path, keep):
    path = tmp_path / 'a.npz'
    write_proposals(path, {1: [[0, 0, 5, 5]]}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match='truncated'):
        ProposalFile(path)


def test_other_npz_and_pickles_raise(tmp_path):
    np.savez(tmp_path / 'other.npz', a=np.zeros(3))
    np.savez_compressed(tmp_path / 'small.npz', image_ids=[1], offsets=[0, 0],
                        boxes=np.zeros((0, 4)), meta=[0])
    np.savez(tmp_path / 'evil.npz', image_ids=np.array([object()]),
             offsets=[0, 0], boxes=np.zeros((0, 4)), meta=[0])
    for name in ('other.npz', 'small.npz', 'evil.npz'):
        with pytest.raises(ValueError, match='is not a proposal file'):
            ProposalFile(tmp_path / name)


def test_newer_version_raises(tmp_path, monkeypatch):
    monkeypatch.setattr('univip_mm.proposals.proposal_file.VERSION', 2)
    write_proposals(tmp_path / 'a.npz', {1: []}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match='update univip_mm'):
        ProposalFile(tmp_path / 'a.npz')


def test_write_proposals_requires_npz_suffix(tmp_path):
    with pytest.raises(ValueError, match='.npz'):
        write_proposals(tmp_path / 'a.json', {}, {})
