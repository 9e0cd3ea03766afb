import json
import math

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as mask_api
from tiny import error_of, run_tool

from univip_mm.io.boxes import xywh_to_xyxy
from univip_mm.proposals.inspect import quantiles, recall

xywh = arrays(np.float64, st.tuples(st.integers(0, 9), st.just(4)),
              elements=st.integers(1, 60).map(float))


@given(xywh, xywh)
def test_recall_is_that_of_pycocotools_iou(proposed, annotated):
    annotations = [dict(image_id=1, bbox=box) for box in annotated.tolist()]
    number, shares = recall({1: xywh_to_xyxy(proposed)}, annotations,
                            (0.5, 0.7))
    assert number == len(annotated)
    if len(annotated):
        best = np.zeros(len(annotated))
        if len(proposed):
            best = mask_api.iou(annotated, proposed,
                                [0] * len(proposed)).max(axis=1)
        for thr in (0.5, 0.7):
            assert shares[thr] == pytest.approx((best >= thr).mean())


def test_crowds_empty_boxes_and_other_images_do_not_count():
    annotations = [dict(image_id=1, bbox=[0, 0, 9, 9], iscrowd=1),
                   dict(image_id=1, bbox=[0, 0, 0, 9]),
                   dict(image_id=2, bbox=[0, 0, 9, 9])]
    number, shares = recall({1: np.array([[0, 0, 9, 9]])}, annotations)
    assert number == 0 and math.isnan(shares[0.5])


def test_quantiles_are_told_as_text():
    assert quantiles(np.arange(11)) == (
        '0 smallest, 1 (10 %), 5 (median), 9 (90 %), 10 largest')


def test_tool_tells_and_draws(coco_folder, capsys):
    path = coco_folder / 'train.json'
    content = json.loads(path.read_text())
    content['annotations'] = [
        dict(image_id=10, bbox=[0, 0, 70, 70]),
        dict(image_id=80, bbox=[0, 0, 70, 70])]
    path.write_text(json.dumps(content))
    run_tool('inspect_proposals', coco_folder / 'train.npz', '--ann-file',
             path, '--img-prefix', coco_folder / 'images', '-n', '4')
    said = capsys.readouterr().out
    assert 'min_size=64, max_aspect_ratio=3.0, iou_thr=0.5' in said
    assert '1 images (12.5%) have fewer than 4' in said
    assert 'of 2 annotated boxes: 0.500 at IoU 0.5, 0.500 at IoU 0.7' in said
    folder = coco_folder / 'train.inspect'
    shape = matplotlib.image.imread(folder / 'histograms.png').shape
    assert shape[:2] == (520, 1800)
    sheet = matplotlib.image.imread(folder / 'samples.png')
    assert sheet.shape[1] == 3 * 660 and sheet.std() > 0.1


def test_file_without_boxes_is_drawn_too(tmp_path, capsys):
    from univip_mm.proposals import write_proposals
    write_proposals(tmp_path / 'a.npz', {1: []}, {})
    run_tool('inspect_proposals', tmp_path / 'a.npz')
    assert '1 images (100.0%)' in capsys.readouterr().out
    assert (tmp_path / 'a.inspect' / 'histograms.png').is_file()


@pytest.mark.parametrize('args, message', [
    (['none.npz'], 'no proposal file'),
    (['train.json'], 'not a proposal file'),
    (['train.npz', '--ann-file', 'none.json'], 'no annotation file')])
def test_tool_tells_mistakes_in_one_line(
        coco_folder, monkeypatch, args, message):
    monkeypatch.chdir(coco_folder)
    assert message in error_of('inspect_proposals', *args)
