"""Image files: decoding, sizes, and the reasons why a file is unreadable.

The proposals and the training use the same decoder, so that the boxes match
the pixels.
"""
import io
import os
import warnings
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image

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

_ORIENTATION = ExifTags.Base.Orientation


class UnreadableImageError(ValueError):
    """Error of a file that is not an image or not a complete image.

    Args:
        reason (str): One of ``REASONS``.
        detail (str): More about the error. Defaults to ''.
    """

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


def read_image(path: Union[str, os.PathLike]) -> np.ndarray:
    """Read and decode an image file.

    Args:
        path (str or PathLike): The file.

    Returns:
        np.ndarray: The pixels (H, W, 3) uint8, BGR, as in
        :func:`decode_image`.

    Raises:
        OSError: The file cannot be read.
        UnreadableImageError: See :func:`decode_image`.
    """
    return decode_image(Path(path).read_bytes())


def decode_image(data: bytes) -> np.ndarray:
    """Decode an image to the pixels of the host's ``LoadImageFromFile``.

    The EXIF orientation is applied, 16 bits are reduced to 8, and gray and
    CMYK images are converted to BGR.

    Args:
        data (bytes): Content of the file.

    Returns:
        np.ndarray: The pixels (H, W, 3) uint8, BGR.

    Raises:
        UnreadableImageError: The data is not an image, is cut off, or has too
            many pixels.
    """
    if not data:
        raise UnreadableImageError(EMPTY)
    _check_size_in_header(data)
    if is_jpeg(data):
        _check_jpeg_end(data)
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as e:
        raise UnreadableImageError(NO_IMAGE, ' '.join(str(e).split())) from e
    if pixels is None:
        raise UnreadableImageError(NO_IMAGE)
    return pixels


def read_size(path: Union[str, os.PathLike]) -> Optional[tuple[int, int]]:
    """Read (width, height) after EXIF orientation, or None on any error."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Orientations 5 to 8 swap the sides.
            if image.getexif().get(_ORIENTATION, 1) > 4:
                width, height = height, width
        return width, height
    except (OSError, Image.DecompressionBombError):
        return None


def check_pixels(height: int, width: int) -> None:
    """Raise UnreadableImageError if an image is too large for the memory.

    The limit is that of Pillow's error: twice ``Image.MAX_IMAGE_PIXELS``,
    about 179 million pixels by default.

    Raises:
        UnreadableImageError: The image has more pixels.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise UnreadableImageError(TOO_LARGE, f'{width} x {height}')


def is_jpeg(data: bytes) -> bool:
    """Return True if the data starts like a JPEG.

    simplejpeg's own check also looks at the end of the data, so a cut off
    JPEG fails that check.
    """
    return data[:3] == b'\xff\xd8\xff'


def is_rotated(data: bytes) -> bool:
    """Return True if EXIF orientation changes the image, or is damaged."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # any error of Pillow's parser
        return True


def is_cut_off(error: ValueError) -> bool:
    """Return True if simplejpeg's error reports a premature end of file."""
    return 'remature end' in str(error)


def _check_size_in_header(data: bytes) -> None:
    """Raise UnreadableImageError before memory is allocated for pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
        except Image.DecompressionBombError as e:
            raise UnreadableImageError(TOO_LARGE, str(e)) from None
        except Exception:
            return  # OpenCV may still read the image, and has its own limit
    check_pixels(height, width)


def _check_jpeg_end(data: bytes) -> None:
    """Raise UnreadableImageError if a JPEG is cut off.

    Some versions of OpenCV fill the missing part with gray. The check decodes
    at one eighth of the size, which takes a fifth of the time.
    """
    try:
        space = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(
            data,
            colorspace='CMYK' if space in ('CMYK', 'YCCK') else 'GRAY',
            fastdct=True, min_height=1, min_width=1, min_factor=8)
    except ValueError as e:
        if is_cut_off(e):
            raise UnreadableImageError(CUT_OFF) from None
        # Other decoders accept smaller faults, such as a stray byte.
