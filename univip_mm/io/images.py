"""Image files: decoding, sizes, and the reasons why a file is unreadable.

The proposals and the training use the same decoder, so that the boxes match
the pixels.
"""
import io
import os
import re
import warnings
from itertools import islice
from typing import IO, Optional

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from .archive import open_archive, split_path
from .atomic import PathLike
from .exif import ORIENTATION, orientation_of, swaps_sides
from .files import NotRegularError, open_regular

MISSING = 'the file is missing'
NOT_READ = 'the file cannot be read'
EMPTY = 'the file is empty'
NO_IMAGE = 'not an image, or a damaged one'
CUT_OFF = 'the file ends before the image does'
TOO_LARGE = 'too many pixels'
TOO_SMALL = 'a side below min_image_size'
NOT_REGULAR = 'not a regular file'
TOO_MANY_BYTES = 'too many bytes'
TOO_MANY_SCANS = 'too many progressive scans'
# ProposalCocoDataset.skipped stores a reason as its position in this tuple,
# counted from 1.
REASONS = (MISSING, NOT_READ, EMPTY, NO_IMAGE, CUT_OFF, TOO_LARGE, TOO_SMALL,
           NOT_REGULAR, TOO_MANY_BYTES, TOO_MANY_SCANS)

# The pixels of the largest image that Pillow accepts have 512 MiB.
MAX_BYTES = 2**29
# Encoders write about 10 scans. A scan of 232 bytes can take 0.1 s.
MAX_SCANS = 50

_MAX_MARKERS = 100_000  # cameras write fewer than 1,000
_SCAN = re.compile(b'\xff\xda')
# FF 00 is a data byte FF; D0 to D7, in the data of a scan, have no length.
_MARKER = re.compile(b'\xff([^\x00\xd0-\xd7\xff])')
_START_OF_SCAN, _END, _WITHOUT_LENGTH = 0xda, 0xd9, (0x01, 0xd8)


class UnreadableImageError(ValueError):
    """Error of an unreadable image file, with one of ``REASONS``."""

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(f'{reason} ({detail})' if detail else reason)
        self.reason = reason


class TooManyUnreadableError(ValueError):
    """Error that stops the training because too many images are unreadable.

    All ranks raise this error together. The text is a single line, although a
    worker of the data loader adds its traceback to an error.
    """

    def __str__(self) -> str:
        text = super().__str__().rstrip()
        return text.rpartition(f'{type(self).__name__}: ')[2]


class NoReadableImageError(TooManyUnreadableError):
    """Error of many unreadable images in a row, raised on one rank or more."""


def reason_of(error: Exception) -> str:
    """Return the entry of ``REASONS`` for an error of loading an image."""
    if isinstance(error, UnreadableImageError):
        return error.reason
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, NotRegularError):
        return NOT_REGULAR
    return NOT_READ if isinstance(error, OSError) else NO_IMAGE


def read_image(path: PathLike) -> np.ndarray:
    """Read an image file, and decode it with :func:`decode_image`."""
    return decode_image(read_bytes(path))


def read_bytes(path: PathLike) -> bytes:
    """Read a regular file of at most ``MAX_BYTES``; never block.

    The file can be in an archive: 'x.zip/name' or 'x.tar/name'.

    Raises:
        OSError: The file is missing, not regular, or cannot be read.
        UnreadableImageError: The file is too large.
    """
    if parts := split_path(path):
        name = parts[1]
        try:
            archive = open_archive(parts[0])
        except ValueError as e:  # it was damaged while in use
            raise UnreadableImageError(NOT_READ, str(e)) from None
        if (size := archive.size(name)) > MAX_BYTES:
            raise UnreadableImageError(TOO_MANY_BYTES, str(size))
        return archive.read(name)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise UnreadableImageError(TOO_MANY_BYTES, str(size))
        return file.read(size)


def check_before_decoding(data: bytes) -> None:
    """Raise UnreadableImageError if decoding could take all memory or hours.

    The header must give a size: it limits the memory for the pixels.
    """
    if not data:
        raise UnreadableImageError(EMPTY)
    check_scans(data)
    if data[:8] == b'\x89PNG\r\n\x1a\n' and data[12:16] == b'IHDR':
        # Pillow refuses PNGs with long texts, which OpenCV reads.
        check_pixels(int.from_bytes(data[20:24], 'big'),
                     int.from_bytes(data[16:20], 'big'))
        return
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # they do not name the file
        try:
            Image.open(io.BytesIO(data)).close()
        except Image.DecompressionBombError as e:
            raise UnreadableImageError(TOO_LARGE, str(e)) from None
        except Exception:  # a JPEG can still be read, without Pillow
            if not is_jpeg(data):
                raise UnreadableImageError(NO_IMAGE) from None
            check_pixels(*read_jpeg_header(data)[:2])


def decode_image(data: bytes) -> np.ndarray:
    """Decode an image to the pixels of the host's ``LoadImageFromFile``.

    The EXIF orientation is applied, 16 bits are reduced to 8, and gray and
    CMYK images are converted to BGR.

    Returns:
        np.ndarray: The pixels (H, W, 3) uint8, BGR.

    Raises:
        UnreadableImageError: The data is not an image, is truncated, or has
            too many pixels or scans.
    """
    check_before_decoding(data)
    if is_jpeg(data):
        _check_jpeg_end(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except Exception as e:  # any error of a parser
        raise UnreadableImageError(NO_IMAGE, ' '.join(str(e).split())) from e
    if pixels is None:
        raise UnreadableImageError(NO_IMAGE)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise UnreadableImageError(NO_IMAGE, 'its values are not 8-bit colors')
    return pixels


def read_size(path: PathLike) -> Optional[tuple[int, int]]:
    """Read the (width, height) of the decoded image, or None on any error.

    The pixels are decoded only if another format than JPEG has metadata with
    an orientation, because decoders differ in which of them they apply.

    Raises:
        NotRegularError: The path is not a regular file.
    """
    try:
        with _open(path) as file, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # they do not name the file
            with Image.open(file) as image:
                width, height = image.size
                if image.format in ('JPEG', 'MPO'):
                    exif = image.info.get('exif', b'').removeprefix(
                        b'Exif\0\0')
                    if swaps_sides(orientation_of(exif)):
                        width, height = height, width
                elif _has_orientation(image, file):
                    height, width = read_image(path).shape[:2]
        return width, height
    except NotRegularError:
        raise
    except Exception:  # any error of a parser
        return None


def _open(path: PathLike) -> IO[bytes]:
    return (io.BytesIO(read_bytes(path)) if split_path(path) else
            open_regular(path))


def _has_orientation(image: Image.Image, file: IO[bytes]) -> bool:
    """Return True if an image has metadata with an orientation."""
    if image.format == 'PNG':
        # Pillow would decode the pixels to find metadata after them.
        file.seek(0)
        return b'eXIf' in file.read()
    return image.getexif().get(ORIENTATION, 1) != 1


def check_pixels(height: int, width: int) -> None:
    """Raise UnreadableImageError if an image is too large for the memory.

    The limit is that of Pillow's error: twice ``Image.MAX_IMAGE_PIXELS``,
    about 179 million pixels by default.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise UnreadableImageError(TOO_LARGE, f'{width} x {height}')


def check_scans(data: bytes) -> None:
    """Raise UnreadableImageError if a JPEG has more than ``MAX_SCANS``.

    Each scan updates all pixels, whatever its length. The count is that of
    libjpeg, which ignores a thumbnail, and data after the image.
    """
    # Fast path, three times as fast as bytes.count().
    if not is_jpeg(data) or next(
            islice(_SCAN.finditer(data), MAX_SCANS, None), None) is None:
        return
    scans, at = 0, 2
    for _ in range(_MAX_MARKERS):
        marker = _MARKER.search(data, at)
        if marker is None:
            return
        code, at = marker[1][0], marker.end()
        if code == _END:
            return
        if code not in _WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at:at + 2], 'big'))
        scans += code == _START_OF_SCAN
        if scans > MAX_SCANS:
            break
    raise UnreadableImageError(TOO_MANY_SCANS)


def is_jpeg(data: bytes) -> bool:
    """Return True if data starts as a JPEG, which may be truncated."""
    # simplejpeg's own check rejects a truncated JPEG.
    return data[:3] == b'\xff\xd8\xff'


def read_jpeg_header(data: bytes) -> tuple:
    """Return the height, the width and the color space of a JPEG."""
    try:
        return simplejpeg.decode_jpeg_header(data)[:3]
    except Exception as e:  # any error of a parser
        raise UnreadableImageError(NO_IMAGE, str(e)) from None


def _check_jpeg_end(data: bytes) -> None:
    """Raise UnreadableImageError if a JPEG is truncated.

    Some versions of OpenCV fill the missing part with gray. The check decodes
    at one eighth of the size, which takes a fifth of the time.
    """
    try:
        space = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(
            data, 'CMYK' if space in ('CMYK', 'YCCK') else 'GRAY',
            fastdct=True, min_height=1, min_width=1, min_factor=8)
    except Exception as e:  # any error of a parser
        if 'remature end' in str(e):
            raise UnreadableImageError(CUT_OFF) from None
        # Other decoders accept smaller faults, such as a stray byte.
