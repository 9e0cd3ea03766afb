import json
import os
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import clip_boxes_to_image

from univip_mm.io.boxes import ProposalRules, filter_boxes, xywh_to_xyxy
from univip_mm.proposals import ProposalFile
from univip_mm.proposals.importers import (
    Counts,
    clean_boxes,
    import_proposals,
    load_pickle,
)

IMAGES = [dict(id=7, file_name='b/2.jpg', width=300, height=200),
          dict(id=3, file_name='b/1.jpg', width=200, height=300),
          dict(id=5, file_name='b/3.jpg', width=400, height=400)]
RULES = ProposalRules(min_size=20)


@pytest.fixture
def boxes():
    """Boxes xywh of each image, the last of them without any."""
    rng = np.random.default_rng(0)
    found = [rng.integers(0, 100, (40, 4)).astype(float) for _ in IMAGES]
    found[2] = np.zeros((0, 4))
    return found


def write(path, source_format, boxes, tensors=False):
    if source_format == 'orl':
        path.write_text(json.dumps(dict(bbox=[b.tolist() for b in boxes])))
    elif source_format == 'coco':
        entries = [
            dict(image_id=image['id'], bbox=box, category_id=1,
                 score=1 - i / 1000)
            for image, found in zip(IMAGES, boxes)
            for i, box in enumerate(found.tolist())
        ]
        random.Random(0).shuffle(entries)
        path.write_text(json.dumps(entries))
    else:
        content = dict(bbox={
            image['file_name']: torch.from_numpy(b) if tensors else b
            for image, b in zip(IMAGES, boxes)})
        path.write_bytes(pickle.dumps(content))
    return path


def run(tmp_path, source_format, source, images=IMAGES, **kwargs):
    counts = import_proposals(source_format, source, images,
                              tmp_path / 'a.npz', RULES, **kwargs)
    return ProposalFile(tmp_path / 'a.npz'), counts


@pytest.mark.parametrize('source_format', ['orl', 'pickle', 'coco'])
def test_every_format_gives_the_filtered_boxes_of_each_image(
        tmp_path, boxes, source_format):
    source = write(tmp_path / 'source', source_format, boxes)
    proposals, counts = run(tmp_path, source_format, source, top_n=5)
    assert counts.read == 80 and sorted(proposals) == [3, 5, 7]
    for image, found in zip(IMAGES, boxes):
        found = xywh_to_xyxy(found)
        found = found[(found[:, 2:] > found[:, :2]).all(axis=1)]
        assert (found[:, 2:] <= (image['width'], image['height'])).all()
        expected = filter_boxes(found, RULES, top_n=5)
        assert np.array_equal(proposals[image['id']], expected)
    assert proposals.meta['rules'] == RULES.as_dict()
    assert proposals.meta['method'] == f'imported from {source_format}'
    assert proposals.meta['top_n'] == 5


@pytest.mark.parametrize('how', ['arrays', 'tensors', 'torch.save', 'lists',
                                 'protocol 2', 'names without folder'])
def test_pickles_of_every_kind_are_read(tmp_path, boxes, how):
    names = [image['file_name'] for image in IMAGES]
    if how == 'names without folder':
        names = [os.path.basename(name) for name in names]
    kind = dict(tensors=torch.from_numpy, lists=np.ndarray.tolist)
    kind['torch.save'] = torch.from_numpy
    convert = kind.get(how, np.asarray)
    content = dict(bbox={n: convert(b) for n, b in zip(names, boxes)})
    source = tmp_path / 'source.pkl'
    if how == 'torch.save':
        torch.save(content, source)
    else:
        source.write_bytes(pickle.dumps(
            content, protocol=2 if how == 'protocol 2' else 5))
    proposals, _ = run(tmp_path, 'pickle', source)
    write(tmp_path / 'orl.json', 'orl', boxes)
    expected, _ = run(tmp_path, 'orl', tmp_path / 'orl.json')
    assert all(np.array_equal(proposals[i], expected[i]) for i in expected)


class Payload:

    def __reduce__(self):
        return os.system, ('touch /tmp/univip_payload_ran', )


class Rebuilt:
    """Asks for a tensor whose storage is a pickle with a payload."""

    def __reduce__(self):
        from torch.storage import _load_from_bytes
        return _load_from_bytes, (pickle.dumps(Payload()), )


@pytest.mark.parametrize('payload, named', [
    (Payload(), 'posix.system'),
    (dict(bbox={'b/1.jpg': [Payload()]}), 'posix.system'),
    (Rebuilt(), 'not a pickle of boxes'), (os.getcwd, 'posix.getcwd'),
    (getattr, 'builtins.getattr'), (np.load, 'numpy.*load'),
    (np.array([{}]), "numpy.dtype 'O8'"),
    (np.zeros(2, 'U3'), "numpy.dtype 'U3'")])
def test_pickle_with_a_payload_is_refused_by_name(tmp_path, payload, named):
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=named):
        load_pickle(path)
    assert not os.path.exists('/tmp/univip_payload_ran')


def test_torch_file_with_a_payload_is_refused(tmp_path):
    torch.save(dict(bbox=Payload()), tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='not a pickle of boxes'):
        load_pickle(tmp_path / 'evil.pth')
    assert not os.path.exists('/tmp/univip_payload_ran')


class Forged:
    """An array of objects whose addresses the pickle chooses."""

    def __reduce__(self):
        return np.dtype, ('f8', False, True), (
            3, '|', None, None, None, 8, 8, 63)


def test_state_of_a_dtype_is_not_taken_over(tmp_path):
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(Forged()))
    assert load_pickle(path).dtype == np.float64
    assert not load_pickle(path).dtype.hasobject


@pytest.mark.parametrize('dtype', ['<f4', '>f8', '<i2', 'u1', 'bool', '>i4'])
@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_arrays_of_every_kind_come_back(tmp_path, dtype, order, protocol):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype, order=order)
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps(dict(a=array, b=array[1, 2]), protocol))
    loaded = load_pickle(path)
    assert np.array_equal(np.asarray(loaded['a']), array)
    assert loaded['b'] == array[1, 2]


finite_or_not = st.floats(-300, 700, width=32) | st.sampled_from(
    [np.nan, np.inf, -np.inf, 0.0, 1e30])


@given(arrays(np.float64, st.tuples(st.integers(0, 20), st.just(4)),
              elements=finite_or_not), st.integers(1, 500),
       st.integers(1, 500))
def test_every_box_is_kept_inside_or_counted(boxes, width, height):
    counts = Counts()
    kept = clean_boxes(boxes, width, height, counts)
    assert counts.read == len(boxes) == len(kept) + counts.not_finite + (
        counts.empty + counts.outside)
    assert counts.clipped <= len(kept)
    assert (kept[:, :2] >= 0).all() and (kept[:, 2:] > kept[:, :2]).all()
    assert (kept[:, 2:] <= (width, height)).all()
    assert counts.not_finite == (~np.isfinite(boxes).all(axis=1)).sum()
    good = np.isfinite(boxes).all(axis=1) & (np.abs(boxes) < 1e5).all(axis=1)
    xyxy = torch.from_numpy(np.round(xywh_to_xyxy(boxes[good])))
    expected = clip_boxes_to_image(xyxy, (height, width)).numpy()
    full = (expected[:, 2:] > expected[:, :2]).all(axis=1)
    if good.all():
        assert np.array_equal(kept, expected[full])


def test_what_is_dropped_and_clipped_is_counted_by_kind(tmp_path):
    found = [np.array([[10, 10, 50, 50], [np.nan, 0, 9, 9], [0, 0, 0, 30],
                       [30, 30, -20, 40], [400, 10, 50, 50],
                       [-10, -10, 60, 60]])] + [np.zeros((0, 4))] * 2
    source = write(tmp_path / 'a.pkl', 'pickle', found)
    proposals, counts = run(tmp_path, 'pickle', source)
    assert counts == Counts(read=6, not_finite=1, empty=2, outside=1,
                            clipped=1)
    assert proposals[7].tolist() == [[10, 10, 60, 60], [0, 0, 50, 50]]
    assert proposals.meta['boxes']['clipped'] == 1


@pytest.mark.parametrize('source_format', ['orl', 'pickle'])
@pytest.mark.parametrize('number', [2, 4])
def test_counts_that_differ_are_both_told(tmp_path, boxes, source_format,
                                          number):
    images = [dict(IMAGES[0], id=i, file_name=f'{i}.jpg')
              for i in range(number)]
    source = write(tmp_path / 'source', source_format, boxes)
    with pytest.raises(ValueError, match=f'of 3 images.* lists {number}'):
        run(tmp_path, source_format, source, images)
    assert not (tmp_path / 'a.npz').exists()


def test_results_of_other_images_are_told(tmp_path, boxes):
    source = write(tmp_path / 'source', 'coco', boxes)
    with pytest.raises(ValueError, match='image id 3, which is not among the'):
        run(tmp_path, 'coco', source, [IMAGES[0], IMAGES[2]])
    source = write(tmp_path / 'source', 'pickle', boxes)
    others = [dict(image, file_name='x.jpg') for image in IMAGES]
    with pytest.raises(ValueError, match="no boxes of 'x.jpg'"):
        run(tmp_path, 'pickle', source, others)


@pytest.mark.parametrize('source_format', ['orl', 'pickle', 'coco'])
@pytest.mark.parametrize('share', [0, 0.5, 0.99])
def test_source_that_is_cut_short_is_told_and_nothing_is_written(
        tmp_path, boxes, source_format, share):
    source = write(tmp_path / 'source', source_format, boxes)
    content = source.read_bytes()
    source.write_bytes(content[:int(share * len(content))])
    (tmp_path / 'a.npz').write_bytes(b'an earlier one')
    with pytest.raises(ValueError, match="source' is not .*cut short"):
        run(tmp_path, source_format, source)
    assert (tmp_path / 'a.npz').read_bytes() == b'an earlier one'


@pytest.mark.parametrize('source_format, text, message', [
    ('orl', '{"bbox": [[[1, 2, 3]], [], []]}', 'image 0 .*not a list'),
    ('orl', '{"bbox": [[["a", 2, 3, 4]], [], []]}', 'image 0'),
    ('orl', '{"boxes": []}', 'of 0 images'),
    ('orl', '{"bbox": [[[NaN, 0, 1, 1]], [], []]}', 'NaN'),
    ('coco', '{"images": [], "annotations": []}', 'no box in .*source'),
    ('coco', '[]', "where 'coco' has them"),
    ('orl', '{"bbox": [[], [], []]}', "where 'orl' has them"),
    ('coco', '[{"bbox": [1, 2, 3, 4]}]', "entry 0 .*'image_id'"),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3]}]', 'bbox has 3 numbers'),
    ('coco', '[3]', 'entry 0'),
    ('orl', 'no json', 'not JSON')])
def test_source_of_another_form_is_told_in_one_line(
        tmp_path, source_format, text, message):
    (tmp_path / 'source').write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path, source_format, tmp_path / 'source')
    assert '\n' not in str(error.value)


def test_missing_numbers_and_sources_and_sizes_are_told(tmp_path, boxes):
    (tmp_path / 'source').write_text('{"bbox": [[[null, 1, 2, 3]], [], []]}')
    _, counts = run(tmp_path, 'orl', tmp_path / 'source')
    assert counts.not_finite == 1
    with pytest.raises(FileNotFoundError, match='none'):
        run(tmp_path, 'orl', tmp_path / 'none')
    with pytest.raises(ValueError, match="no 'width'"):
        run(tmp_path, 'orl', tmp_path / 'source', [dict(id=1, file_name='a')])
    with pytest.raises(ValueError, match="format 'xml'"):
        run(tmp_path, 'xml', tmp_path / 'source')
