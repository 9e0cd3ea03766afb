import struct
import zlib

import cv2
import numpy as np
import pytest
from image_bytes import add_stray_byte, encode, exif, photograph
from mmcv.transforms import LoadImageFromFile

from univip_mm.io.encoded_image import EncodedImage
from univip_mm.io.images import (
    CUT_OFF,
    EMPTY,
    NO_IMAGE,
    TOO_LARGE,
    UnreadableImageError,
    decode_image,
    read_image,
    read_size,
)


def png_without_pixels(width, height):
    """A PNG whose header has that size, with next to no data."""

    def chunk(name, content):
        return (struct.pack('>I', len(content)) + name + content
                + struct.pack('>I', zlib.crc32(name + content)))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', zlib.compress(bytes(1000)))
            + chunk(b'IEND', b''))


def large_jpeg():
    """A JPEG whose header says 65000 x 65000."""
    data = encode()
    at = data.index(b'\xff\xc0') + 5
    return data[:at] + struct.pack('>HH', 65000, 65000) + data[at + 4:]


def png16(gray=False):
    pixels = photograph()[..., ::-1].astype(np.uint16) * 257
    return cv2.imencode('.png', pixels[..., 0] if gray else pixels)[
        1].tobytes()


@pytest.mark.parametrize('data', [
    encode(), encode(mode='L'), encode(mode='CMYK'), encode('PNG'),
    encode('PNG', 'P'), encode('PNG', 'LA'), encode('BMP'),
    encode('WEBP'), png16(), png16(gray=True), encode(exif=exif(6)),
    encode('PNG', exif=exif(6)), encode(image=photograph(1, 4000)),
    encode('PNG', image=photograph(30000, 2))])
def test_read_image_matches_host(tmp_path, data):
    path = tmp_path / 'image'
    path.write_bytes(data)
    expected = LoadImageFromFile()(dict(img_path=str(path)))['img']
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected)


def test_decode_image_converts_16_bit():
    image = photograph()[..., ::-1]
    assert np.array_equal(decode_image(png16()), image)
    assert np.array_equal(decode_image(png16(gray=True)),
                          image[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize('data, reason', [
    (b'', EMPTY),
    (b'a text', NO_IMAGE),
    (encode()[:-500], CUT_OFF),
    (encode(exif=exif(6))[:-500], CUT_OFF),
    (encode(mode='CMYK')[:-500], CUT_OFF),
    (encode('PNG')[:-500], NO_IMAGE),
    (encode('PNG')[:100], NO_IMAGE),
    (encode('WEBP')[:-500], NO_IMAGE),
    (encode()[:40], NO_IMAGE),
    (b'\xff\xd8\xff', NO_IMAGE),
    (png_without_pixels(40000, 40000), TOO_LARGE),
    (png_without_pixels(20000, 20000), TOO_LARGE),
    (png_without_pixels(12000, 12000), NO_IMAGE),
    (large_jpeg(), TOO_LARGE),
])
@pytest.mark.parametrize('decode', [
    decode_image, lambda data: EncodedImage(data).decode()])
def test_decode_reports_reason(decode, data, reason):
    with pytest.raises(UnreadableImageError) as e:
        decode(data)
    assert e.value.reason == reason and str(e.value).startswith(reason)


@pytest.mark.parametrize('decode', [
    decode_image, lambda data: EncodedImage(data).decode()])
@pytest.mark.parametrize('options, shape', [
    (dict(), (300, 400, 3)), (dict(exif=exif(6)), (400, 300, 3))])
def test_decode_accepts_stray_byte(decode, options, shape):
    data = add_stray_byte(encode(**options))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == shape
    assert np.array_equal(decode(data), pixels)


# Little endian, one tag: the orientation, as the text 'abc'.
EXIF_WITH_TEXT = (b'Exif\0\0II*\0\x08\0\0\0\x01\0'
                  b'\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0')


@pytest.mark.parametrize('data, size', [
    (encode(image=photograph(30, 40)), (40, 30)),
    (encode(image=photograph(30, 40), exif=exif(6)), (30, 40)),
    (encode(image=photograph(30, 40), exif=EXIF_WITH_TEXT), None),
    (large_jpeg(), None), (b'', None), (b'GIF89a', None)])
def test_read_size(tmp_path, data, size):
    path = tmp_path / 'image'
    path.write_bytes(data)
    assert read_size(path) == size
    assert read_size(tmp_path / 'missing') is None
