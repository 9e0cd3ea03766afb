import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from univip_mm.datasets.transforms.box_sampling import (
    sample_boxes,
    sample_crop,
)
from univip_mm.io.boxes import ProposalRules, inside, obeys_shape_rules


def test_sample_crop_is_distributed_as_in_torchvision():
    torch.manual_seed(0)
    width, height, n = 500, 300, 4000
    areas, ratios = (0.08, 1.0), (3 / 4, 4 / 3)
    rng = random.Random(0)
    ours = np.array([
        sample_crop(rng, width, height, areas, ratios) for _ in range(n)])
    image = torch.empty(3, height, width)
    theirs = np.array([
        RandomResizedCrop.get_params(image, areas, ratios) for _ in range(n)
    ])[:, [1, 0, 3, 2]]  # x, y, w, h
    ours = np.concatenate([ours[:, :2], ours[:, 2:] - ours[:, :2]], 1)
    for column in range(4):
        gap = np.abs(
            np.quantile(ours[:, column], np.linspace(.05, .95, 19)) -
            np.quantile(theirs[:, column], np.linspace(.05, .95, 19)))
        assert gap.max() < 0.04 * width


@given(width=st.integers(64, 400), height=st.integers(64, 400),
       seed=st.integers(0, 2**32))
def test_sample_boxes_obey_shape_rules_inside_window(width, height, seed):
    window, rules = (7, 5, 7 + width, 5 + height), ProposalRules()
    boxes = sample_boxes(np.random.default_rng(seed), window, rules, 50)
    assert boxes.shape == (50, 4)
    assert obeys_shape_rules(boxes, rules).all()
    assert inside(boxes, window).all()
