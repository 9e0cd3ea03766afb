import numpy as np
import pytest
from visual_files import read_png

from univip_mm.visualization import (
    NeighbourRow,
    SimilarityRow,
    draw_neighbours,
    draw_points,
    draw_proposal_histograms,
    draw_proposals,
    draw_scenes,
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


# An escape sequence, a lone surrogate, and broken math of Matplotlib.
ODD = 'a\n\x1b[2J\udc80$\\frac{$.jpg'


@pytest.mark.filterwarnings('ignore:Glyph')
def test_pictures_accept_odd_names(tmp_path):
    picture = np.full((80, 80, 3), 90, np.uint8)
    boxes = np.array([[5, 5, 70, 70]])
    draw_points(np.zeros((2, 2)), [ODD, 'b'], tmp_path / 'points.png', ODD,
                ODD)
    draw_proposal_histograms(np.array([1]), boxes, tmp_path / 'h.png', ODD)
    draw_similarity([SimilarityRow(ODD, picture, boxes,
                                   np.zeros((1, 80, 80)))],
                    tmp_path / 'maps.png', ODD)
    for draw in (
            lambda title: draw_proposals(picture, boxes, title=title),
            lambda title: draw_scenes(
                picture, boxes, np.array([[0, 0, 80, 80]] * 2), np.array(
                    [0, 0, 80, 80]), boxes, 1, [picture] * 3, title=title)):
        assert not np.array_equal(draw(ODD), draw(''))
        assert np.array_equal(draw('a\nb'), draw(r'a\nb'))
