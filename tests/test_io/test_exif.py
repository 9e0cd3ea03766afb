import struct

import cv2
import numpy as np
import pytest
from image_bytes import encode, exif, photograph

from univip_mm.io.exif import orientation_of


def exif_data(value, order='<', start=None, tag=0x0112):
    """EXIF data with one tag, whose byte order can be damaged."""
    start = start or (b'II' if order == '<' else b'MM')
    return start + struct.pack(f'{order}HIHHHIHHI', 42, 8, 1, tag, 3, 1,
                               value, 0, 0)


def jpeg_with(data):
    """A JPEG of 40 x 30 pixels with this EXIF data."""
    return encode(image=photograph(30, 40), exif=b'Exif\0\0' + data)


@pytest.mark.parametrize('data', [
    *(exif_data(value, order) for value in range(10) for order in '<>'),
    exif_data(6, '>', b'XM'),  # Pillow ignores it, OpenCV applies it
    exif_data(6, '<', b'IX'), exif_data(6, tag=0x010f), exif_data(6)[:15],
    b'', b'MM', exif(8).tobytes()[6:]])
def test_orientation_of_matches_opencv(data):
    flipped = cv2.imdecode(np.frombuffer(jpeg_with(data), np.uint8),
                           cv2.IMREAD_COLOR)
    plain = cv2.imdecode(
        np.frombuffer(jpeg_with(data), np.uint8),
        cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    is_upright = flipped.shape == plain.shape and (flipped == plain).all()
    assert (orientation_of(data) == 1) == is_upright
    assert (orientation_of(data) > 4) == (flipped.shape[:2] == (40, 30))
