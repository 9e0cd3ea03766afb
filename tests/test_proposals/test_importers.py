import json
import os
import pickle
import random

import numpy as np
import pytest
import torch

from univip_mm.io.boxes import ProposalRules, filter_boxes, xywh_to_xyxy
from univip_mm.proposals import ProposalFile
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


@pytest.mark.parametrize('how', ['arrays', 'tensors', 'torch.save', 'lists',
                                 'protocol 2', 'names without folder'])
def test_import_reads_every_kind_of_pickle(tmp_path, boxes, how):
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


def test_import_counts_dropped_and_clipped_boxes(tmp_path):
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
def test_import_rejects_other_number_of_images(tmp_path, boxes, source_format,
                                          number):
    images = [dict(IMAGES[0], id=i, file_name=f'{i}.jpg')
              for i in range(number)]
    source = write(tmp_path / 'source', source_format, boxes)
    with pytest.raises(ValueError, match=f'of 3 images.* lists {number}'):
        run(tmp_path, source_format, source, images)
    assert not (tmp_path / 'a.npz').exists()


def test_import_rejects_results_of_other_images(tmp_path, boxes):
    source = write(tmp_path / 'source', 'coco', boxes)
    with pytest.raises(ValueError, match='image id 3, which is not among the'):
        run(tmp_path, 'coco', source, [IMAGES[0], IMAGES[2]])
    source = write(tmp_path / 'source', 'pickle', boxes)
    others = [dict(image, file_name='x.jpg') for image in IMAGES]
    with pytest.raises(ValueError, match="no boxes of 'x.jpg'"):
        run(tmp_path, 'pickle', source, others)


@pytest.mark.parametrize('source_format', ['orl', 'pickle', 'coco'])
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
    ('orl', '{"boxes": []}', 'of 0 images'),
    ('orl', '{"bbox": [[[NaN, 0, 1, 1]], [], []]}', 'NaN'),
    ('coco', '{"images": [], "annotations": []}', 'no box in .*source'),
    ('coco', '[]', "format 'coco'"),
    ('orl', '{"bbox": [[], [], []]}', "format 'orl'"),
    ('coco', '[{"bbox": [1, 2, 3, 4]}]', "entry 0 .*'image_id'"),
    ('coco', '[{"image_id": 7, "bbox": [1, 2, 3]}]', 'bbox has 3 numbers'),
    ('coco', '[3]', 'entry 0'),
    ('orl', 'no json', 'not JSON')])
def test_import_rejects_other_content_in_one_line(
        tmp_path, source_format, text, message):
    (tmp_path / 'source').write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path, source_format, tmp_path / 'source')
    assert '\n' not in str(error.value)


def test_import_rejects_missing_source_and_sizes(tmp_path, boxes):
    (tmp_path / 'source').write_text('{"bbox": [[[null, 1, 2, 3]], [], []]}')
    _, counts = run(tmp_path, 'orl', tmp_path / 'source')
    assert counts.not_finite == 1
    with pytest.raises(FileNotFoundError, match='none'):
        run(tmp_path, 'orl', tmp_path / 'none')
    with pytest.raises(ValueError, match="no 'width'"):
        run(tmp_path, 'orl', tmp_path / 'source', [dict(id=1, file_name='a')])
    with pytest.raises(ValueError, match="format 'xml'"):
        run(tmp_path, 'xml', tmp_path / 'source')
