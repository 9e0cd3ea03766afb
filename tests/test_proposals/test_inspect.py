import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as mask_api

from univip_mm.io.boxes import xywh_to_xyxy
from univip_mm.proposals import ProposalFile, write_proposals
from univip_mm.proposals.inspect import describe, quantiles, recall

xywh = arrays(np.float64, st.tuples(st.integers(0, 9), st.just(4)),
              elements=st.integers(1, 60).map(float))


@given(xywh, xywh)
def test_recall_matches_pycocotools(proposed, annotated):
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


def test_recall_ignores_crowds_and_empty_boxes():
    annotations = [dict(image_id=1, bbox=[0, 0, 9, 9], iscrowd=1),
                   dict(image_id=1, bbox=[0, 0, 0, 9]),
                   dict(image_id=2, bbox=[0, 0, 9, 9])]
    number, shares = recall({1: np.array([[0, 0, 9, 9]])}, annotations)
    assert number == 0 and math.isnan(shares[0.5])


def test_quantiles_formats_text():
    assert quantiles(np.arange(11)) == (
        '0 smallest, 1 (10 %), 5 (median), 9 (90 %), 10 largest')


def test_describe_counts_unreadable_and_reduced_images(tmp_path):
    write_proposals(tmp_path / 'a.npz', {1: [], 2: [], 3: []},
                    dict(unreadable=[1], reduced=[2, 3]))
    lines = describe(ProposalFile(tmp_path / 'a.npz'), 4)
    assert 'unreadable    1 images' in lines
    assert any(x.startswith('reduced       2 images, ') for x in lines)
