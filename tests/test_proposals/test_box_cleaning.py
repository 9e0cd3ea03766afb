import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import clip_boxes_to_image

from univip_mm.io.boxes import xywh_to_xyxy
from univip_mm.proposals.box_cleaning import Counts, clean_boxes

finite_or_not = st.floats(-300, 700, width=32) | st.sampled_from(
    [np.nan, np.inf, -np.inf, 0.0, 1e30])


@given(arrays(np.float64, st.tuples(st.integers(0, 20), st.just(4)),
              elements=finite_or_not), st.integers(1, 500),
       st.integers(1, 500))
def test_clean_boxes_matches_torchvision_clip(boxes, width, height):
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
