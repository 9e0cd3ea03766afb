"""The examples of docs/extend.md."""
import importlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ROOT

from univip_mm.io.boxes import ProposalRules, iou
from univip_mm.models import SinkhornOTLoss
from univip_mm.proposals import ProposalFile
from univip_mm.registry import MODELS


@pytest.fixture(scope='module')
def example():
    sys.path.insert(0, str(ROOT / 'docs/examples'))
    yield importlib.import_module
    sys.path.remove(str(ROOT / 'docs/examples'))


def test_spread_loss_adds_mean_cosine_of_instances(example):
    example('spread_loss')
    loss = MODELS.build(dict(type='SpreadInstanceLoss', spread_weight=0.5))
    o, t = torch.randn(2, 3, 4, 8)
    scenes = torch.randn(2, 3, 8)
    o.requires_grad_()
    ours, log_vars = loss.loss_and_log_vars(o, t, *scenes)
    cosine = torch.nn.CosineSimilarity(dim=-1)
    pairs = [(m, n) for m in range(4) for n in range(4) if m != n]
    expected = torch.stack(
        [cosine(o[:, m], o[:, n]).mean() for m, n in pairs]).mean()
    transport = SinkhornOTLoss()(o, t, *scenes)
    assert ours.item() == pytest.approx((transport + expected / 2).item(),
                                        1e-4)
    assert loss(o, t, *scenes).item() == pytest.approx(ours.item(), 1e-6)
    assert log_vars['instance_cosine'].item() == pytest.approx(
        expected.item(), 1e-4)
    ours.backward()
    assert o.grad.isfinite().all() and o.grad.abs().sum() > 0


@pytest.mark.parametrize('value', [0., 1e30])
def test_spread_loss_is_finite(example, value):
    example('spread_loss')
    loss = MODELS.build(dict(type='SpreadInstanceLoss'))
    o = torch.full((2, 4, 8), value, requires_grad=True)
    total = loss(o, o.detach(), o.detach()[:, 0], o.detach()[:, 0])
    total.backward()
    assert total.isfinite() and o.grad.isfinite().all()


def test_contour_proposals_find_squares(example, tmp_path):
    picture = np.full((200, 300, 3), 90, np.uint8)
    picture[40:140, 30:130] = (250, 20, 20)
    picture[60:160, 180:280] = (20, 20, 250)
    Image.fromarray(picture).save(tmp_path / 'a.png')
    (tmp_path / 'all.json').write_text(
        json.dumps(dict(images=[dict(id=5, file_name='a.png')])))
    example('contour_proposals').main(
        tmp_path / 'all.json', tmp_path, tmp_path / 'out.npz')
    found = ProposalFile(tmp_path / 'out.npz')
    truth = [[30, 40, 130, 140], [180, 60, 280, 160]]
    assert iou(found[5], truth).max(axis=0).min() > 0.8
    assert found.meta['rules'] == ProposalRules().as_dict()
