"""Image files: decoding, sizes, and the reasons why a file is unreadable.

The proposals and the training use the same decoder, so that the boxes match
the pixels.
"""
import io
import warnings
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from .atomic import PathLike

MISSING = 'the file is missing'
NOT_READ = 'the file cannot be read'
EMPTY = 'the file is empty'
NO_IMAGE = 'not an image, or a damaged one'
CUT_OFF = 'the file ends before the image does'
TOO_LARGE = 'too many pixels'
TOO_SMALL = 'a side below min_image_size'
# ProposalCocoDataset.skipped stores a reason as its position in this tuple,
# counted from 1.
REASONS = (MISSING, NOT_READ, EMPTY, NO_IMAGE, CUT_OFF, TOO_LARGE, TOO_SMALL)

_ORIENTATION = 0x0112  # EXIF tag; ExifTags.Base needs Pillow 9.3


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
    return NOT_READ if isinstance(error, OSError) else NO_IMAGE


def read_image(path: PathLike) -> np.ndarray:
    """Read an image file, and decode it with :func:`decode_image`."""
    return decode_image(Path(path).read_bytes())


def decode_image(data: bytes) -> np.ndarray:
    """Decode an image to the pixels of the host's ``LoadImageFromFile``.

    The EXIF orientation is applied, 16 bits are reduced to 8, and gray and
    CMYK images are converted to BGR.

    Returns:
        np.ndarray: The pixels (H, W, 3) uint8, BGR.

    Raises:
        UnreadableImageError: The data is not an image, is truncated, or has
            too many pixels.
    """
    if not data:
        raise UnreadableImageError(EMPTY)
    _check_size_in_header(data)
    if _is_jpeg(data):
        _check_jpeg_end(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as e:
        raise UnreadableImageError(NO_IMAGE, ' '.join(str(e).split())) from e
    if pixels is None:
        raise UnreadableImageError(NO_IMAGE)
    return pixels


def read_size(path: PathLike) -> Optional[tuple[int, int]]:
    """Read (width, height) after EXIF orientation, or None on any error."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Orientations 5 to 8 swap the sides.
            if image.getexif().get(_ORIENTATION, 1) > 4:
                width, height = height, width
        return width, height
    except Exception:  # any error of Pillow's parser
        return None


def check_pixels(height: int, width: int) -> None:
    """Raise UnreadableImageError if an image is too large for the memory.

    The limit is that of Pillow's error: twice ``Image.MAX_IMAGE_PIXELS``,
    about 179 million pixels by default.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise UnreadableImageError(TOO_LARGE, f'{width} x {height}')


def is_plain_jpeg(data: bytes) -> bool:
    """Return True for a JPEG whose EXIF orientation changes nothing."""
    if not _is_jpeg(data):
        return False
    if not _has_exif(data):  # most JPEGs; this is faster than Pillow's parser
        return True
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(_ORIENTATION, 1) == 1
    except Exception:  # any error of Pillow's parser
        return False


def _is_jpeg(data: bytes) -> bool:
    # simplejpeg's own check rejects a truncated JPEG.
    return data[:3] == b'\xff\xd8\xff'


def _has_exif(data: bytes) -> bool:
    """Search the segments before a JPEG's first table for EXIF data."""
    at = 2
    while at + 1 < len(data) and data[at] == 0xff and (
            0xe0 <= data[at + 1] <= 0xef or data[at + 1] == 0xfe):
        if data[at + 4:at + 10] == b'Exif\0\0':
            return True
        at += 2 + int.from_bytes(data[at + 2:at + 4], 'big')
    return False


def _check_size_in_header(data: bytes) -> None:
    """Raise UnreadableImageError before memory is allocated for pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try:
            Image.open(io.BytesIO(data)).close()
        except Image.DecompressionBombError as e:
            raise UnreadableImageError(TOO_LARGE, str(e)) from None
        except Exception:
            pass  # OpenCV may still read the image, and has its own limit


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
    except ValueError as e:
        if 'remature end' in str(e):
            raise UnreadableImageError(CUT_OFF) from None
        # Other decoders accept smaller faults, such as a stray byte.
