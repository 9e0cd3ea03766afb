import io
import json
import os
import random
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univip_mm.io.boxes import ProposalRules, filter_boxes, xywh_to_xyxy
from univip_mm.proposals import ProposalFile, json_stream
from univip_mm.proposals.box_cleaning import Counts
from univip_mm.proposals.importers import import_proposals

IMAGES = [dict(id=7, file_name='b/2.jpg', width=300, height=200),
          dict(id=3, file_name='b/1.jpg', width=200, height=300),
          dict(id=5, file_name='b/3.jpg', width=400, height=400)]
RULES = ProposalRules(min_size=20)


@pytest.fixture
def boxes():
    """Boxes xywh of each image; the last image has no box."""
    rng = np.random.default_rng(0)
    found = [rng.integers(0, 100, (40, 4)).astype(float) for _ in IMAGES]
    found[2] = np.zeros((0, 4))
    return found


def write(path, source_format, boxes):
    if source_format == 'orl':
        path.write_text(json.dumps(dict(bbox=[b.tolist() for b in boxes])))
    else:
        entries = [
            dict(image_id=image['id'], bbox=box, category_id=1,
                 score=1 - i / 1000)
            for image, found in zip(IMAGES, boxes)
            for i, box in enumerate(found.tolist())
        ]
        random.Random(0).shuffle(entries)
        path.write_text(json.dumps(entries))
    return path


def run(tmp_path, source_format, source, images=IMAGES, **kwargs):
    counts = import_proposals(source_format, source, images,
                              tmp_path / 'a.npz', RULES, **kwargs)
    return ProposalFile(tmp_path / 'a.npz'), counts


@pytest.mark.parametrize('source_format', ['orl', 'coco'])
def test_import_filters_boxes_of_each_format(
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


def test_import_counts_dropped_and_clipped_boxes(tmp_path):
    found = [[[10, 10, 50, 50], [None, 0, 9, 9], [0, 0, 0, 30],
              [30, 30, -20, 40], [400, 10, 50, 50], [-10, -10, 60, 60]],
             [], []]
    (tmp_path / 'a.json').write_text(json.dumps(dict(bbox=found)))
    proposals, counts = run(tmp_path, 'orl', tmp_path / 'a.json')
    assert counts == Counts(read=6, not_finite=1, empty=2, outside=1,
                            clipped=1)
    assert proposals[7].tolist() == [[10, 10, 60, 60], [0, 0, 50, 50]]
    assert proposals.meta['boxes']['clipped'] == 1


@pytest.mark.parametrize('number', [2, 4])
def test_import_rejects_other_number_of_images(tmp_path, boxes, number):
    images = [dict(IMAGES[0], id=i, file_name=f'{i}.jpg')
              for i in range(number)]
    source = write(tmp_path / 'source', 'orl', boxes)
    with pytest.raises(ValueError, match=f'of 3 images.* lists {number}'):
        run(tmp_path, 'orl', source, images)
    assert not (tmp_path / 'a.npz').exists()


def test_import_rejects_results_of_other_images(tmp_path, boxes):
    source = write(tmp_path / 'source', 'coco', boxes)
    with pytest.raises(ValueError, match='image id 3, which is not among the'):
        run(tmp_path, 'coco', source, [IMAGES[0], IMAGES[2]])


@pytest.mark.parametrize('source_format', ['orl', 'coco'])
@pytest.mark.parametrize('share', [0, 0.5, 0.99])
def test_import_of_incomplete_source_writes_nothing(
        tmp_path, boxes, source_format, share):
    source = write(tmp_path / 'source', source_format, boxes)
    content = source.read_bytes()
    source.write_bytes(content[:int(share * len(content))])
    (tmp_path / 'a.npz').write_bytes(b'an earlier one')
    with pytest.raises(ValueError, match="source' is not .*truncated"):
        run(tmp_path, source_format, source)
    assert (tmp_path / 'a.npz').read_bytes() == b'an earlier one'


@pytest.mark.parametrize('source_format, text, message', [
    ('orl', '{"bbox": [[[1, 2, 3]], [], []]}', 'image 0 .*not a list'),
    ('orl', '{"bbox": [[["a", 2, 3, 4]], [], []]}', 'image 0'),
    ('orl', '{"boxes": []}', 'no box in'),
    ('orl', '{"bbox": [[[NaN, 0, 1, 1]], [], []]}', 'NaN'),
    ('coco', '{"images": [], "annotations": []}', 'no box in .*source'),
    ('coco', '[]', "format 'coco'"),
    ('orl', '{"bbox": [[], [], []]}', "format 'orl'"),
    ('coco', '[{"bbox": [1, 2, 3, 4]}]', "entry 0 .*'image_id'"),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3]}]', 'bbox has 3 numbers'),
    ('coco', '[3]', 'entry 0'),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3, "a"]}]', 'entry 0'),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3, null]}]', 'entry 0'),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3, 4], "score": null}]',
     'entry 0'),
    ('coco', '[{"image_id": [7], "bbox": [1, 2, 3, 4]}]', r'image id \[7\]'),
    ('coco', '[{"image_id": true, "bbox": [1, 2, 3, 4]}]', 'image id True'),
    ('coco', '[{"image_id": "07", "bbox": [1, 2, 3, 4]}]', "image id '07'"),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3, 4], "score": "nan"}]',
     'score is nan'),
    ('coco', '[{"image_id": "%s", "bbox": [1, 2, 3, 4]}]' % ('x' * 10**5),
     r'xxx\.\.\., which is not among'),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3, 1e999]}]', 'not JSON'),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3, %s]}]' % ('9' * 5000),
     'not JSON'),
    ('orl', '{"bbox": [[[1, 2, 3, 1e999]], [], []]}', 'not JSON'),
    ('orl', '{"bbox": [[[1, 2, 3, Infinity]], [], []]}', 'not JSON'),
    ('orl', '{"bbox": [[{"a": 1}], [], []]}', 'image 0'),
    ('orl', '{"b\\ud800": 1, "bbox": [[], [], []]}', 'no box|not JSON'),
    ('orl', '[{"image_id": 7, "bbox": [1, 2, 3, 4]}]', 'no box in .*orl'),
    ('orl', 'no json', 'not JSON')])
def test_import_rejects_other_content_in_one_line(
        tmp_path, source_format, text, message):
    (tmp_path / 'source').write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path, source_format, tmp_path / 'source')
    assert '\n' not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize('text', [
    '{"bbox": ' + '[' * 300_000, '{"a": ' * 300_000, '[' * 300_000,
    '{"bbox": [[' + '[' * 20 + ']' * 20, '{"bbox": [' + '{"a": [' * 10])
def test_import_rejects_deep_json_at_once(tmp_path, text):
    (tmp_path / 'source').write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for source_format in ('orl', 'coco'):
        with pytest.raises(ValueError, match='more than 16 levels deep'):
            run(tmp_path, source_format, tmp_path / 'source')
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used < 100_000  # KB; it was gigabytes


@pytest.mark.parametrize('text', [
    '{"bbox": [["%s', '{"bbox": [[[%s', '{"%s', '{"bbox": [[[1, 2, 3, 4%s',
    '{"a": ["%s'])
def test_import_limits_the_bytes_of_an_item(tmp_path, monkeypatch, text):
    monkeypatch.setattr(json_stream, 'MAX_ITEM_BYTES', 10**6)
    (tmp_path / 'source').write_text(text % ('1' * 2 * 10**6))
    with pytest.raises(ValueError, match='item of more than 1000000 bytes'):
        run(tmp_path, 'orl', tmp_path / 'source')
    many = ', '.join(['[[0, 0, 30, 30]]'] * 100_001)
    (tmp_path / 'source').write_text(f'{{"bbox": [{many}]}}')
    with pytest.raises(ValueError, match='boxes of 100001 images'):
        run(tmp_path, 'orl', tmp_path / 'source')


@given(st.recursive(
    st.none() | st.integers(-9, 9) | st.text('[]{}",:\\a\u00e9\n', max_size=9),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(
        st.text('[]{}"\\', max_size=5), x, max_size=4), max_leaves=20),
    st.integers(1, 9), st.booleans())
def test_reader_follows_the_depth_of_any_json(value, size, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    reader = json_stream._BoundedReader(io.BytesIO(data), 1)
    read = b''
    while part := reader.read(size):
        read += part
    assert read == data
    assert reader._depth == 0 and not reader._in_string


def test_import_of_pickle_names_the_cure(tmp_path):
    (tmp_path / 'source').write_bytes(b'')
    with pytest.raises(ValueError, match='can run code.*page "Proposals"'):
        run(tmp_path, 'pickle', tmp_path / 'source')


@pytest.mark.timeout(20)
def test_import_source_must_be_regular(tmp_path):
    os.mkfifo(tmp_path / 'source')
    with pytest.raises(OSError, match='not a regular file'):
        run(tmp_path, 'orl', tmp_path / 'source')


def write_orl(path, *boxes):
    path.write_text(json.dumps(dict(bbox=boxes)))
    return path


def test_import_reads_a_squeezed_box_of_orl(tmp_path):
    source = write_orl(tmp_path / 'a.json', [1, 2, 30, 40], [[5, 6, 70, 80]],
                       [])
    proposals, counts = run(tmp_path, 'orl', source)
    assert counts.read == 2
    assert [proposals[i].tolist() for i in (7, 3, 5)] == [
        [[1, 2, 31, 42]], [[5, 6, 75, 86]], []]


def test_import_reads_text_and_float_image_ids(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps([
        dict(image_id='7', bbox=[1, 2, 30, 40], score=1),
        dict(image_id=3.0, bbox=[5, 6, 70, 80], score=1)]))
    proposals, _ = run(tmp_path, 'coco', tmp_path / 'a.json')
    assert [len(proposals[i]) for i in (7, 3, 5)] == [1, 1, 0]


def test_import_without_size_does_not_clip(tmp_path, caplog):
    source = write_orl(tmp_path / 'a.json', [[280, 2, 50, 40]],
                       [[180, 2, 50, 40]], [])
    images = [dict(id=7, file_name='a.jpg'), *IMAGES[1:]]
    proposals, counts = run(tmp_path, 'orl', source, images)
    assert proposals[7].tolist() == [[280, 2, 330, 42]]
    assert proposals[3].tolist() == [[180, 2, 200, 42]]
    assert counts.clipped == 1
    assert '1 of 3 images' in caplog.text and 'id 7' in caplog.text


@pytest.mark.parametrize('box, reason', [
    ([None, 0, 30, 30], '1 are not finite'),
    ([.1, .1, .3, .3], '1 are empty'),
    ([900, 900, 30, 30], '1 are outside'),
    ([1, 1, 9, 9], r'1 do not obey the rules \(min_size 20\)')])
def test_import_without_any_box_left_is_refused(tmp_path, box, reason):
    source = write_orl(tmp_path / 'a.json', [box], [], [])
    with pytest.raises(ValueError, match=reason):
        run(tmp_path, 'orl', source)
    assert not (tmp_path / 'a.npz').exists()


def test_import_warns_of_boxes_that_do_not_fit(tmp_path, caplog):
    boxes = [[x, 20, 50, 50] for x in range(100, 200, 10)]
    run(tmp_path, 'orl', write_orl(tmp_path / 'a.json', boxes, [], []))
    assert caplog.text == ''
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    run(tmp_path, 'orl', write_orl(tmp_path / 'a.json', corners, [], []))
    assert 'do not fit' in caplog.text and 'of 10, 0 were' in caplog.text


def test_import_rejects_missing_source_and_format(tmp_path):
    (tmp_path / 'source').write_text('{}')
    with pytest.raises(FileNotFoundError, match='none'):
        run(tmp_path, 'orl', tmp_path / 'none')
    with pytest.raises(ValueError, match="format 'xml'"):
        run(tmp_path, 'xml', tmp_path / 'source')
