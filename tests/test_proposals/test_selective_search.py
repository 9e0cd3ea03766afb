import cv2
import numpy as np
import pytest

from univip_mm.io.boxes import iou
from univip_mm.proposals import check_opencv, selective_search


@pytest.fixture
def picture():
    image = np.full((150, 200, 3), 90, np.uint8)
    cv2.rectangle(image, (20, 30), (89, 109), (20, 20, 220), -1)
    cv2.circle(image, (150, 75), 30, (30, 200, 40), -1)
    return image


@pytest.mark.parametrize('method', ['fast', 'quality'])
def test_selective_search_finds_objects(picture, method):
    boxes = selective_search(picture, method)
    for expected in ([20, 30, 90, 110], [120, 45, 181, 106]):
        assert iou(boxes, [expected]).max() > 0.9
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (200, 150)).all()


def test_selective_search_is_deterministic(picture):
    first = selective_search(picture)
    selective_search(picture[:100])
    assert np.array_equal(selective_search(picture), first)


@pytest.mark.parametrize('shape', [(1, 1), (1, 50), (50, 1), (3, 2)])
def test_selective_search_accepts_tiny_images(shape):
    boxes = selective_search(np.zeros((*shape, 3), np.uint8))
    assert boxes.shape[1] == 4


def test_selective_search_rejects_unknown_method(picture):
    with pytest.raises(ValueError, match="'slow'"):
        selective_search(picture, 'slow')


def test_check_opencv_requires_contrib(monkeypatch):
    check_opencv()
    # Left behind if opencv-python is installed last.
    monkeypatch.delattr(
        cv2.ximgproc.segmentation, 'createSelectiveSearchSegmentation')
    with pytest.raises(ImportError, match='opencv-contrib-python-headless'):
        check_opencv()
    monkeypatch.delattr(cv2, 'ximgproc')
    with pytest.raises(ImportError, match='contrib modules'):
        check_opencv()
