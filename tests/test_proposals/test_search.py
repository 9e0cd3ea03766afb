import numpy as np
import pytest

from univip_mm.io.boxes import ProposalRules
from univip_mm.proposals import Search
from univip_mm.proposals.search import search_file


def test_max_side_scales_boxes_back(tmp_path):
    image = np.full((240, 400, 3), 90, np.uint8)
    image[40:120, 200:360] = (250, 30, 30)
    boxes = Search(max_side=100, rules=ProposalRules(min_size=30))(image)
    assert np.abs(boxes - [200, 40, 360, 120]).max(axis=1).min() <= 5
    assert (boxes >= 0).all() and (boxes <= [400, 240, 400, 240]).all()
    whole = Search(max_side=400)(image)
    assert np.array_equal(whole, Search()(image))


@pytest.mark.parametrize('options', [dict(top_n=0), dict(max_side=0)])
def test_search_rejects_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Search(**options)


def test_image_below_min_size_is_not_searched(monkeypatch):
    monkeypatch.setattr('univip_mm.proposals.search.selective_search', None)
    search = Search(rules=ProposalRules(min_size=30))
    for shape in ((4000, 1, 3), (2, 30000, 3), (29, 29, 3)):
        boxes = search(np.zeros(shape, np.uint8))
        assert boxes.shape == (0, 4) and boxes.dtype == np.int32


@pytest.mark.parametrize('width, height, copied', [
    (1600, 1250, (1600, 1250)),  # 2 megapixels
    (4000, 3000, (640, 480)), (6000, 1000, (1358, 226)),
    (30000, 100, (3000, 10)), (64, 3001, (64, 3000)), (3000, 64, (3000, 64))])
def test_large_image_is_searched_in_a_copy(
        monkeypatch, width, height, copied):
    def last_box(image, method):
        h, w = image.shape[:2]
        assert (w, h) == copied
        return np.array([[0, 0, w, h]])

    monkeypatch.setattr('univip_mm.proposals.search.selective_search',
                        last_box)
    image = np.zeros((height, width, 3), np.uint8)
    search = Search(rules=ProposalRules(max_aspect_ratio=999))
    assert search(image).tolist() == [[0, 0, width, height]]
    assert search.reduces(width, height) == ((width, height) != copied)


def test_max_side_replaces_the_limit_of_large_images(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        'univip_mm.proposals.search.selective_search', lambda image, method:
        sizes.append(image.shape[1]) or np.zeros((0, 4), int))
    image = np.zeros((1500, 2000, 3), np.uint8)
    for max_side in (100, 1999, 100_000):
        search = Search(max_side=max_side)
        search(image)
        assert not search.reduces(2000, 1500)
    assert sizes == [100, 1999, 2000]


@pytest.mark.parametrize('error', [SyntaxError, OverflowError, TypeError])
def test_search_file_reports_any_error_of_reading(monkeypatch, error):
    def fail(path):
        raise error('broken\nfile')

    monkeypatch.setattr('univip_mm.proposals.search.read_image', fail)
    boxes, problem, _ = search_file('a.png', Search())
    assert boxes.shape == (0, 4) and problem == 'broken file'
