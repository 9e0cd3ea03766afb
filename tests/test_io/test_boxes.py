import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import box_iou

from univip_mm.io.boxes import (
    ProposalRules,
    filter_boxes,
    inside,
    iou,
    obeys_shape_rules,
    xywh_to_xyxy,
)

boxes = arrays(np.int32, st.tuples(st.integers(0, 40), st.just(4)),
               elements=st.integers(0, 100)).map(
                   lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1)
               )  # yapf: disable


@given(boxes, boxes)
def test_iou_matches_torchvision(a, b):
    expected = box_iou(*(torch.from_numpy(x).double() for x in (a, b)))
    np.testing.assert_allclose(iou(a, b), expected.nan_to_num(0), atol=1e-12)


@given(boxes, st.integers(1, 30), st.floats(1, 5),
       st.integers(0, 100).map(lambda hundredths: hundredths / 100))
def test_filter_boxes_matches_sequential_filter(
        b, min_size, ratio, iou_thr):
    kept = []
    for box in b.tolist():
        w, h = box[2] - box[0], box[3] - box[1]
        if min(w, h) < min_size or max(w, h) > ratio * min(w, h):
            continue
        if all(iou([box], [other])[0, 0] <= iou_thr for other in kept):
            kept.append(box)
    rules = ProposalRules(min_size, ratio, iou_thr)
    assert filter_boxes(b, rules).tolist() == kept
    assert filter_boxes(b, rules, top_n=3).tolist() == kept[:3]


def test_obeys_shape_rules_includes_the_limits():
    rules = ProposalRules(min_size=64, max_aspect_ratio=3)
    b = np.array([[0, 0, 64, 192], [0, 0, 64, 193], [0, 0, 192, 64],
                  [0, 0, 63, 100]])
    assert obeys_shape_rules(b, rules).tolist() == [True, False, True, False]


@pytest.mark.parametrize('hundredths', range(1, 100))
def test_filter_boxes_includes_the_iou_limit(hundredths):
    b = np.array([[5, 5, 705, 6], [5, 5, 5 + 7 * hundredths, 6]])
    for limit, number in ((hundredths / 100, 2), (hundredths / 100 - 1e-6, 1)):
        rules = ProposalRules(1, 1000, limit)
        assert len(filter_boxes(b, rules)) == number


def test_inside_includes_the_border():
    b = np.array([[10, 10, 20, 20], [9, 10, 20, 20], [10, 9, 20, 20],
                  [10, 10, 21, 20], [10, 10, 20, 21], [12, 13, 14, 15]])
    assert inside(b, (10, 10, 20, 20)).tolist() == [True] + [False] * 4 + [
        True]


def test_xywh_to_xyxy():
    assert xywh_to_xyxy([[1, 2, 3, 4]]).tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize('options, named', [
    (dict(min_size=0), 'min_size'),
    (dict(max_aspect_ratio=0.5), 'max_aspect_ratio'),
    (dict(max_aspect_ratio=float('inf')), 'max_aspect_ratio'),
    (dict(max_aspect_ratio=float('nan')), 'max_aspect_ratio'),
    (dict(iou_thr=1.5), 'iou_thr')])
def test_rules_reject_values_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        ProposalRules(**options)
