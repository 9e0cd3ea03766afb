import numpy as np
import pytest
from visual_files import read_png

from univip_mm.visualization import (
    NeighbourRow,
    draw_neighbours,
    draw_points,
    draw_similarity,
    draw_transport,
)


@pytest.mark.parametrize('draw', [draw_neighbours, draw_transport,
                                  draw_similarity])
def test_empty_pictures_are_rejected(draw, tmp_path):
    with pytest.raises(ValueError, match='give at least one'):
        draw([], tmp_path / 'x.png')


def test_draw_points_accepts_missing_names(tmp_path):
    draw_points(np.random.default_rng(0).normal(size=(30, 2)),
                ['cat'] * 10 + ['a' * 50] * 10 + [None] * 10,
                tmp_path / 'x.png')
    picture = read_png(tmp_path / 'x.png')
    assert picture.shape[:2] == (1000, 1400)


def test_same_category_has_green_frame(tmp_path):
    picture = np.full((9, 9, 3), 128, np.uint8)
    green, orange = (0, 158, 115), (213, 94, 0)
    counts = {}
    for name in ('cat', 'dog'):
        draw_neighbours(
            [NeighbourRow(picture, 'cat', [picture] * 5, [name] * 5, [1] * 5)],
            tmp_path / 'x.png')
        drawn = read_png(tmp_path / 'x.png')
        counts[name] = [(drawn == x).all(axis=2).sum()
                        for x in (green, orange)]
    assert counts['cat'][0] > 5 * counts['dog'][0]
    assert counts['dog'][1] > 5 * counts['cat'][1]
