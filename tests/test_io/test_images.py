import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from univip_mm.datasets.transforms.load_encoded_image import EncodedImage
from univip_mm.io.images import (
    CUT_OFF,
    EMPTY,
    NO_IMAGE,
    TOO_LARGE,
    UnreadableImageError,
    decode_image,
)


def photograph(height=300, width=400):
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(small).resize((width, height))


def encoded(format='JPEG', mode='RGB', image=None, **options):
    file = io.BytesIO()
    (image or photograph()).convert(mode).save(file, format, **options)
    return file.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def empty_png(width, height):
    """A PNG that says it is that large, and holds next to nothing."""

    def chunk(name, content):
        return (struct.pack('>I', len(content)) + name + content
                + struct.pack('>I', zlib.crc32(name + content)))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', zlib.compress(bytes(1000)))
            + chunk(b'IEND', b''))


def large_jpeg():
    """A JPEG whose header says 65000 x 65000."""
    data = encoded()
    at = data.index(b'\xff\xc0') + 5
    return data[:at] + struct.pack('>HH', 65000, 65000) + data[at + 4:]


def png16(grey=False):
    pixels = np.asarray(photograph())[..., ::-1].astype(np.uint16) * 257
    return cv2.imencode('.png', pixels[..., 0] if grey else pixels)[
        1].tobytes()


@pytest.mark.parametrize('data', [
    encoded(), encoded(mode='L'), encoded(mode='CMYK'), encoded('PNG'),
    encoded('PNG', 'P'), encoded('PNG', 'LA'), encoded('BMP'),
    encoded('WEBP'), png16(), png16(grey=True), encoded(exif=turned()),
    encoded('PNG', exif=turned()), encoded(image=photograph(1, 4000)),
    encoded('PNG', image=photograph(30000, 2))])
def test_pixels_are_those_of_the_host(tmp_path, data):
    path = tmp_path / 'image'
    path.write_bytes(data)
    expected = LoadImageFromFile()(dict(img_path=str(path)))['img']
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected)


def test_16_bits_become_8():
    image = np.asarray(photograph())[..., ::-1]
    assert np.array_equal(decode_image(png16()), image)
    assert np.array_equal(decode_image(png16(grey=True)),
                          image[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize('data, reason', [
    (b'', EMPTY),
    (b'a text', NO_IMAGE),
    (encoded()[:-500], CUT_OFF),
    (encoded(exif=turned())[:-500], CUT_OFF),
    (encoded(mode='CMYK')[:-500], CUT_OFF),
    (encoded('PNG')[:-500], NO_IMAGE),
    (encoded('WEBP')[:-500], NO_IMAGE),
    (encoded()[:40], NO_IMAGE),
    (empty_png(40000, 40000), TOO_LARGE),
    (empty_png(20000, 20000), TOO_LARGE),
    (empty_png(12000, 12000), NO_IMAGE),
    (large_jpeg(), TOO_LARGE),
])
@pytest.mark.parametrize('decode', [
    decode_image, lambda data: EncodedImage(data).decode()])
def test_the_reason_is_told(decode, data, reason):
    with pytest.raises(UnreadableImageError) as e:
        decode(data)
    assert e.value.reason == reason and str(e.value).startswith(reason)


def test_a_stray_byte_is_not_an_error():
    data = encoded(exif=turned())
    data = data[:-2] + b'\0\0\0' + data[-2:]
    assert decode_image(data).shape == (400, 300, 3)
