import cv2
import numpy as np
import pytest
import torch

from univip_mm.models import view_cutter
from univip_mm.models.view_cutter import cut_batch, cut_views


def table_row(image, box):
    return [0, image.shape[1] * 3, 3, 1, *box]


def opencv(image, box, size):
    x1, y1, x2, y2 = box
    view = cv2.resize(image[y1:y2, x1:x2], (size, size),
                      interpolation=cv2.INTER_CUBIC)
    return view.transpose(2, 0, 1)


def noise(height=90, width=120):
    return np.random.default_rng(0).integers(
        0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('box', [
    (0, 0, 120, 90), (10, 5, 74, 69), (3, 80, 120, 90), (50, 0, 58, 90),
    (7, 7, 15, 15), (0, 0, 9, 8)])
@pytest.mark.parametrize('size', [96, 33])
def test_cut_views_matches_opencv(box, size):
    # Noise differs more often than photographs.
    image = noise()
    ours = cut_views(torch.from_numpy(image).flatten(),
                     torch.tensor([table_row(image, box)]), size)[0].numpy()
    gap = np.abs(ours.astype(int) - opencv(image, box, size))
    assert gap.max() <= 1 and (gap > 0).mean() < 1e-3


def test_cut_views_reads_planar_rgb():
    image = noise()
    planar = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())
    boxes = [(0, 0, 120, 90), (20, 30, 90, 80)]
    expected = cut_views(
        torch.from_numpy(image).flatten(),
        torch.tensor([table_row(image, box) for box in boxes]), 40)
    table = [[2 * 90 * 120, 120, 1, -90 * 120, *box] for box in boxes]
    assert torch.equal(
        cut_views(planar.flatten(), torch.tensor(table), 40), expected)


def test_chunks_do_not_change_the_views(monkeypatch):
    image = noise()
    table = torch.tensor([[
        table_row(image, (0, 0, 100 + i, 90)), table_row(
            image, (i, 0, 70, 60)), table_row(image, (5, i, 80, 80))]
        for i in range(4)])
    batch = torch.from_numpy(image).flatten(), table, [32, 16, 16]
    whole = cut_batch(*batch)
    assert [x.shape for x in whole] == [
        (4, 3, 32, 32), (4, 3, 16, 16), (4, 3, 16, 16)]
    monkeypatch.setattr(view_cutter, '_CHUNK_VALUES', dict(cpu=1))
    assert all(map(torch.equal, whole, cut_batch(*batch)))
    gap = whole[2][3].int().numpy() - opencv(image, (5, 3, 80, 80), 16)
    assert abs(gap).max() <= 1
