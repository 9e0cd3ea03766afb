import cv2
import numpy as np
import pytest
from image_bytes import encode, photograph

from univip_mm.io.encoded_image import EncodedImage


@pytest.mark.parametrize('scale, eighths', [
    (1.0, 8), (0.51, 8), (0.5, 4), (0.26, 3), (0.25, 2), (0.01, 1)])
def test_decode_reduces_to_smallest_allowed_scale(scale, eighths):
    image = photograph(1200, 1600)
    reduced = EncodedImage(encode(image=image), reduce=True).decode(scale)
    assert reduced.shape == (150 * eighths, 200 * eighths, 3)
    area = cv2.resize(image[..., ::-1], reduced.shape[1::-1],
                      interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(reduced, area) > 35
    assert EncodedImage(encode(image=image)).decode(scale).shape == (
        1200, 1600, 3)


def test_fast_dct_changes_pixels_little():
    data = encode()
    exact = EncodedImage(data).decode()
    fast = EncodedImage(data, fast_dct=True).decode()
    assert not np.array_equal(exact, fast)
    assert cv2.PSNR(exact, fast) > 38
