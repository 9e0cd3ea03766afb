import os
import socket
import struct
import zlib

import cv2
import numpy as np
import pytest
from image_bytes import (
    add_stray_byte,
    encode,
    exif,
    many_scans,
    noisy_photograph,
    photograph,
    zero_block,
)
from mmcv.transforms import LoadImageFromFile

from univip_mm.io.encoded_image import EncodedImage
from univip_mm.io.images import (
    CUT_OFF,
    EMPTY,
    MAX_SCANS,
    NO_IMAGE,
    NOT_REGULAR,
    TOO_LARGE,
    TOO_MANY_BYTES,
    TOO_MANY_SCANS,
    UnreadableImageError,
    check_scans,
    decode_image,
    read_image,
    read_size,
    reason_of,
)


def chunk(name, content):
    """A part of a PNG."""
    return (struct.pack('>I', len(content)) + name + content
            + struct.pack('>I', zlib.crc32(name + content)))


def png_without_pixels(width, height, before=b''):
    """A PNG whose header has that size, with next to no data."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + before + chunk(b'IDAT', zlib.compress(bytes(1000)))
            + chunk(b'IEND', b''))


def long_text():
    """A part of a PNG with a text of 2 MB, which Pillow refuses."""
    return chunk(b'zTXt', b'k\0\0' + zlib.compress(bytes(2 * 10**6)))


def large_bmp(bits=24):
    """A BMP whose header says 32000 x 32000."""
    data = bytearray(encode('BMP'))
    data[18:26] = struct.pack('<ii', 32000, 32000)
    data[28] = bits
    return bytes(data)


def large_jpeg(**options):
    """A JPEG whose header says 65000 x 65000."""
    data = encode(**options)
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
    (large_jpeg(exif=exif(6)), TOO_LARGE),
    (png_without_pixels(30000, 30000, long_text()), TOO_LARGE),
    (large_bmp(), TOO_LARGE),
    (large_bmp(bits=3), NO_IMAGE),  # Pillow cannot read this header
    (many_scans(MAX_SCANS + 1), TOO_MANY_SCANS),
    (many_scans(MAX_SCANS + 1) + encode(), TOO_MANY_SCANS),
])
@pytest.mark.parametrize('decode', [
    decode_image, lambda data: EncodedImage(data).decode()])
def test_decode_reports_reason(decode, data, reason):
    with pytest.raises(UnreadableImageError) as e:
        decode(data)
    assert e.value.reason == reason and str(e.value).startswith(reason)


def test_other_formats_get_no_detail_of_the_jpeg_decoder():
    for data in (b'<html>404</html>', encode('WebP')[:100]):
        with pytest.raises(UnreadableImageError) as e:
            decode_image(data)
        assert str(e.value) == NO_IMAGE


@pytest.mark.parametrize('decode', [
    decode_image, lambda data: EncodedImage(data).decode()])
@pytest.mark.parametrize('options, shape', [
    (dict(), (300, 400, 3)), (dict(exif=exif(6)), (400, 300, 3))])
def test_decode_accepts_stray_byte(decode, options, shape):
    data = add_stray_byte(encode(**options))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == shape
    assert np.array_equal(decode(data), pixels)


def test_scans_are_counted_as_in_libjpeg():
    many = b'\xff\xda' * 100
    in_segment = b'\xff\xe5' + struct.pack('>H', 2 + len(many)) + many
    for data in (many_scans(MAX_SCANS), encode(), b'', many,
                 encode()[:2] + in_segment + encode()[2:],
                 encode() + many):  # as after the image of a camera
        check_scans(data)
    hidden = many_scans(60)
    for data in (hidden, hidden[:-2], hidden.replace(b'\xff\xda', b'\xff' * 9
                                                     + b'\xda'),
                 hidden.replace(b'\xff\xda', b'\xff\xd3\xff\xda')):
        if data.count(b'\xff\xda') > MAX_SCANS:
            with pytest.raises(UnreadableImageError, match='scans'):
                check_scans(data)


@pytest.mark.timeout(20)
def test_scan_count_is_linear():
    check_scans(b'\xff\xd8\xff' + b'\xff\xda\0\2' * 50
                + b'\xff' * 10**7 + b'\0')
    with pytest.raises(UnreadableImageError, match='scans'):
        check_scans(b'\xff\xd8\xff\xe0\0\2' + b'\xff' * 10**7
                    + b'\xda\0\2' + b'\xff\xda\0\2' * 51)


@pytest.mark.timeout(20)
@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder', 'socket'])
def test_read_image_opens_regular_files_only(tmp_path, kind):
    path = tmp_path / 'a.jpg'
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'device':
        path.symlink_to('/dev/zero')
    elif kind == 'folder':
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    for read in (read_image, read_size):
        with pytest.raises(OSError) as e:
            read(path)
        assert reason_of(e.value) == NOT_REGULAR


def test_read_image_limits_bytes(tmp_path):
    path = tmp_path / 'a.bmp'
    path.write_bytes(encode('BMP'))
    os.truncate(path, 2**40)  # sparse
    with pytest.raises(UnreadableImageError) as e:
        read_image(path)
    assert e.value.reason == TOO_MANY_BYTES


@pytest.mark.parametrize('name', ['a\0b', '\ud800', 'x' * 300, 'a/b', ''])
def test_read_image_reports_impossible_names(tmp_path, name):
    with pytest.raises(OSError):
        read_image(tmp_path / name)
    assert name in 'a/b' or read_size(tmp_path / name) is None


def png_with(name, content):
    """A PNG with an extra part before its pixels."""
    png = encode('PNG')
    at = png.index(b'IDAT') - 4
    return png[:at] + chunk(name, content) + png[at:]


BAD_PROFILE = b'Raw profile type exif\0\nexif\n  10\nzz not hex\n'
# Little endian, one tag: the orientation, as the text 'abc'.
EXIF_WITH_TEXT = (b'Exif\0\0II*\0\x08\0\0\0\x01\0'
                  b'\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0')


@pytest.mark.parametrize('data, size', [
    (encode(image=photograph(30, 40)), (40, 30)),
    (encode(image=photograph(30, 40), exif=exif(6)), (30, 40)),
    (encode(image=photograph(30, 40), exif=EXIF_WITH_TEXT), (40, 30)),
    (png_with(b'tEXt', BAD_PROFILE), (400, 300)),
    (zero_block(encode('PNG'), 20_000), (400, 300)),
    (large_jpeg(), None), (b'', None), (b'GIF89a', None)])
def test_read_size(tmp_path, data, size):
    path = tmp_path / 'image'
    path.write_bytes(data)
    assert read_size(path) == size
    assert read_size(tmp_path / 'missing') is None


# Of these, OpenCV can be built without AVIF, JPEG 2000 and GIF.
FORMATS = [name for name in ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'PPM',
                             'GIF', 'AVIF', 'JPEG2000')
           if cv2.imdecode(np.frombuffer(encode(name), np.uint8),
                           cv2.IMREAD_COLOR) is not None]


@pytest.mark.parametrize('format', FORMATS)
def test_read_size_matches_decoder(tmp_path, format):
    path = tmp_path / 'image'
    for orientation in range(10):
        path.write_bytes(encode(format, image=photograph(30, 40),
                                exif=exif(orientation)))
        height, width = read_image(path).shape[:2]
        assert read_size(path) == (width, height)


@pytest.mark.parametrize('data', [
    encode(xmp=b'<rdf:Description tiff:Orientation="6"/>'),
    encode('WEBP', xmp=b'<rdf:Description tiff:Orientation="6"/>'),
    png_with(b'eXIf', exif(6).tobytes()[6:])])
def test_read_size_applies_what_the_decoder_applies(tmp_path, data):
    path = tmp_path / 'image'
    path.write_bytes(data)
    assert read_size(path) == decode_image(data).shape[1::-1]


@pytest.mark.parametrize('format', FORMATS)
def test_decode_image_reports_truncated_files(format):
    data = encode(format, image=noisy_photograph())
    for twentieths in range(20):
        with pytest.raises(UnreadableImageError):
            decode_image(data[:len(data) * twentieths // 20])


def test_decode_image_reports_zeros_within_a_png():
    data = encode('PNG', image=noisy_photograph())
    for start in range(0, len(data), 512):
        with pytest.raises(UnreadableImageError):
            decode_image(zero_block(data, start))


def damaged(data, rng):
    """Change, remove or insert some bytes, mostly within the header."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = rng.integers(rng.choice([60, min(700, len(data)), len(data)]))
        cut, number = rng.integers(0, 20, 2) * rng.integers(0, 2, 2)
        data[at:at + cut] = rng.bytes(number) or b'\0'
    return bytes(data)


@pytest.mark.parametrize('data', [
    *(encode(format, image=noisy_photograph()) for format in FORMATS),
    encode(exif=exif(6), image=noisy_photograph()),
    encode(progressive=True, image=noisy_photograph())])
def test_damaged_file_is_read_alike_or_refused(tmp_path, data):
    rng, path = np.random.default_rng(0), tmp_path / 'image'
    for _ in range(100):
        path.write_bytes(damaged(data, rng))
        read_size(path)
        results = []
        for decode in decode_image, lambda x: EncodedImage(x).decode():
            try:
                results.append(decode(path.read_bytes()))
            except UnreadableImageError as e:
                results.append(e.reason)
        search, training = results
        assert np.array_equal(search, training)


# The first byte of the byte order is damaged: Pillow finds no orientation.
HALF_READ_EXIF = (b'Exif\0\0XM\0*\0\0\0\x08\0\1'
                  b'\x01\x12\0\x03\0\0\0\x01\0\6\0\0\0\0\0\0')


def test_encoded_image_is_as_upright_as_the_searched_one():
    data = encode(exif=HALF_READ_EXIF)
    assert np.array_equal(EncodedImage(data).decode(), decode_image(data))


@pytest.mark.parametrize('error', [
    SyntaxError, struct.error, OverflowError, RecursionError, MemoryError])
def test_decode_image_reports_any_error_of_a_parser(monkeypatch, error):
    def fail(*args):
        raise error('broken\nfile')

    monkeypatch.setattr(cv2, 'imdecode', fail)
    with pytest.raises(UnreadableImageError, match='broken file') as e:
        decode_image(encode('PNG'))
    assert e.value.reason == NO_IMAGE


def test_decode_image_refuses_float_values():
    pixels = photograph()[..., 0].astype(np.float32)
    data = cv2.imencode('.pfm', pixels)[1].tobytes()
    with pytest.raises(UnreadableImageError) as e:
        decode_image(data)
    assert e.value.reason == NO_IMAGE
