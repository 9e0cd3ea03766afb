import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from univip_mm.proposals import ProposalFile, write_proposals

box_arrays = st.integers(0, 5).flatmap(
    lambda n: arrays(np.int32, (n, 4), elements=st.integers(0, 40_000))).map(
        lambda x: x + (0, 0, 40_001, 40_001))


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
    with pytest.raises(ValueError, match='the end of the file is missing'):
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


def members_of(**changes):
    """Return the members of a file of 2 images with 3 boxes, changed."""
    meta = changes.pop('meta', {})
    if isinstance(meta, dict):
        meta = json.dumps(dict(dict(format='univip_mm proposals', version=1),
                               **meta)).encode()
    return dict(
        dict(image_ids=np.array([3, 5]), offsets=np.array([0, 1, 3]),
             boxes=np.array([[0, 0, 9, 9], [1, 2, 70, 80], [5, 5, 90, 90]],
                            np.int16),
             names=np.array([7, 8], np.uint32),
             meta=np.frombuffer(meta, np.uint8)), **changes)


def test_meta_that_cannot_be_read_back_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_proposals(tmp_path / 'a.npz', {}, dict(top_n=float('nan')))
    assert not list(tmp_path.iterdir())


def test_members_of_a_valid_file_are_accepted(tmp_path):
    for number, changes in enumerate((
            {}, dict(names=np.zeros(0, np.uint32)),
            dict(boxes=members_of()['boxes'].astype(np.int32)),
            dict(meta=dict(unreadable=[5], rules=dict(
                min_size=64, max_aspect_ratio=3.0, iou_thr=0.5))))):
        np.savez(tmp_path / f'{number}.npz', **members_of(**changes))
        assert len(ProposalFile(tmp_path / f'{number}.npz')[5]) == 2


BOXES = members_of()['boxes']
INVALID = {
    'image_ids': [
        [5, 3], [3, 3], np.array([3, 5], np.int32), np.array([3., 5.]),
        np.array([3, 5], np.uint64), np.array([[3, 5]]), [3], [3, 5, 7],
        np.array([3, 5], '>i8'), np.array(['a', 'b'])],
    'offsets': [
        [0, 3, 1], [0, -1, 3], [-1, 1, 3], [1, 2, 3], [0, 1, 2], [0, 1, 4],
        [0, 1, 2**40], [0, 2**62, 3], [0, 3], [0, 1, 2, 3], [],
        np.array([0., 1., 3.]), np.array([0, 1, 3], np.int32),
        np.array([[0, 1, 3]])],
    'boxes': [
        BOXES.astype(float), BOXES.astype(np.int64), BOXES.astype(np.uint16),
        BOXES[:2], BOXES[:, :3], BOXES.ravel(), BOXES[None],
        BOXES[:, [2, 1, 0, 3]], BOXES[:, [0, 3, 2, 1]], BOXES - BOXES,
        BOXES - np.int16(1), np.asfortranarray(BOXES),
        np.zeros((0, 4), np.int16)],
    'names': [
        np.array([7], np.uint32), np.array([7, 8]), np.array([['a']]),
        np.array([[7, 8]], np.uint32)],
    'meta': [
        b'', b'{', b'[1, 2]', b'null', b'[' * 100_000, b'\xff\xfe',
        b'{"a":' * 100_000, dict(format='x'), dict(version='1'),
        dict(version=None), dict(version=1.0), dict(version=True),
        dict(version=float('nan')), dict(unreadable=5),
        dict(unreadable=['a']), dict(unreadable=[[5]]), dict(reduced='a'),
        dict(rules=[1]),
        dict(rules={}), dict(rules=dict(min_size=64)),
        dict(rules=dict(min_size='64', max_aspect_ratio=3, iou_thr=0)),
        dict(rules=dict(min_size=64, max_aspect_ratio=None, iou_thr=0)),
        dict(rules=dict(min_size=64, max_aspect_ratio=float('nan'),
                        iou_thr=0))]}


@pytest.mark.parametrize('member, number', [
    (member, i) for member, values in INVALID.items()
    for i in range(len(values))])
def test_invalid_member_raises_in_one_line(tmp_path, member, number):
    path = tmp_path / 'a.npz'
    value = INVALID[member][number]
    if member != 'meta':
        value = np.asarray(value, None if np.size(value) else np.int64)
        if isinstance(INVALID[member][number], np.ndarray):
            value = INVALID[member][number]
    np.savez(path, **members_of(**{member: value}))
    with pytest.raises(ValueError, match='is not a proposal file') as error:
        ProposalFile(path)
    text = str(error.value)
    assert str(path) in text and 'generate_proposals' in text
    assert '\n' not in text and len(text) < 500


def test_declared_shapes_do_not_allocate(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, **members_of())
    content = path.read_bytes()
    assert content.count(b"'shape': (3, 4), }") == 1
    for shape in (b'(9**9, 4)', b'(4, 3), }', b'(9999999999, 4), }',
                  b'(-3, -4), }', b'(3, 4, 1), }', b'(0, 4), }',
                  b'((((((((', b'(True, 12), }'):
        old = b"(3, 4), }" + b' ' * 30
        new = shape + b' ' * (len(old) - len(shape))
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match='is not a proposal file'):
            ProposalFile(path)


def rewrite(path, change):
    """Write the zip members again; change gets a list of (name, bytes)."""
    with zipfile.ZipFile(path) as archive:
        members = [(x, archive.read(x)) for x in archive.namelist()]
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in change(members):
            archive.writestr(name, content)


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('change', [
    lambda x: [*x, x[0]], lambda x: x[1:], lambda x: x[:4],
    lambda x: [*x, ('extra.npy', x[0][1])],
    lambda x: [(x[0][0], b''), *x[1:]],
    lambda x: [(x[0][0], b'text' * 99), *x[1:]],
    lambda x: [(x[0][0], x[0][1][:-1]), *x[1:]],
    lambda x: [(x[0][0], x[0][1] + b'1'), *x[1:]],
    lambda x: [(x[0][0], pickle.dumps([3, 5])), *x[1:]],
    lambda x: [(x[0][0][:-4], x[0][1]), *x[1:-1]]])
def test_odd_zip_members_raise(tmp_path, change):
    path = tmp_path / 'a.npz'
    np.savez(path, **members_of())
    rewrite(path, list)
    assert len(ProposalFile(path)) == 2
    rewrite(path, change)
    with pytest.raises(ValueError, match='is not a proposal file'):
        ProposalFile(path)


def test_member_beyond_the_end_of_the_file_raises(tmp_path):
    """A map of such a member would kill the process when it is read."""
    path = tmp_path / 'a.npz'
    write_proposals(path, {i: [[0, 0, 5, 5]] * 99 for i in range(99)}, {})
    content = path.read_bytes()
    central = content.index(b'PK\1\2')
    for cut in (10, 4096, central // 2):
        path.write_bytes(content[:central - cut] + content[central:])
        with pytest.raises(ValueError, match='is not a proposal file'):
            ProposalFile(path)


def test_file_truncated_in_use_raises(tmp_path):
    path = tmp_path / 'a.npz'
    write_proposals(path, {i: [[0, 0, 5, 5]] * 99 for i in range(99)}, {})
    proposals = ProposalFile(path)
    os.truncate(path, 100)
    with pytest.raises(ValueError, match='truncated while it was in use'):
        proposals[98]


@pytest.mark.timeout(20)
@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_proposal_file_must_be_regular(tmp_path, kind):
    path = tmp_path / 'a.npz'
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'device':
        path.symlink_to('/dev/zero')
    else:
        path.mkdir()
    with pytest.raises(ValueError, match='not a regular file'):
        ProposalFile(path)


@pytest.mark.parametrize('box', [
    [9, 0, 5, 5], [0, 9, 5, 5], [0, 0, 0, 5], [0, 0, 5, 0], [-1, 0, 5, 5],
    [0, -1, 5, 5]])
def test_write_proposals_rejects_invalid_box(tmp_path, box):
    boxes = {3: [[0, 0, 5, 5]], 4: [], 5: [[0, 0, 5, 5], box]}
    with pytest.raises(ValueError, match='image id 5 has the box') as error:
        write_proposals(tmp_path / 'a.npz', boxes, {})
    assert str(box) in str(error.value)
    assert not (tmp_path / 'a.npz').exists()


def test_names_with_lone_surrogates_have_a_checksum(tmp_path):
    images = [dict(id=1, file_name='a\udc80.jpg')]
    write_proposals(tmp_path / 'a.npz', {1: []}, {}, {1: 'a\udc80.jpg'})
    assert ProposalFile(tmp_path / 'a.npz').renamed(images) == []


def test_newer_version_raises(tmp_path, monkeypatch):
    monkeypatch.setattr('univip_mm.proposals.proposal_file.VERSION', 2)
    write_proposals(tmp_path / 'a.npz', {1: []}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match='update univip_mm'):
        ProposalFile(tmp_path / 'a.npz')


def test_write_proposals_requires_npz_suffix(tmp_path):
    with pytest.raises(ValueError, match='.npz'):
        write_proposals(tmp_path / 'a.json', {}, {})
