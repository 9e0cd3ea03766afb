"""Image files, decoded alike for the proposals and for the training, so that
boxes fit pixels; and why one cannot be."""
import io
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image

MISSING = 'the file is missing'
NOT_READ = 'the file cannot be read'
EMPTY = 'the file is empty'
NO_IMAGE = 'not an image, or a damaged one'
CUT_OFF = 'the file ends before the image does'
TOO_LARGE = 'too many pixels'
TOO_SMALL = 'a side below min_image_size'
# A data set keeps a reason as its place in here, from 1.
REASONS = (MISSING, NOT_READ, EMPTY, NO_IMAGE, CUT_OFF, TOO_LARGE, TOO_SMALL)


class UnreadableImageError(ValueError):
    """A file is not an image, or not a whole one.

    Args:
        reason (str): One of ``REASONS``.
        detail (str): More about it. Defaults to ''.
    """

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(f'{reason} ({detail})' if detail else reason)
        self.reason = reason


class TooManyUnreadableError(ValueError):
    """So many images cannot be read that the training stops; raised on all
    ranks alike. Its text is one line, though a loader's worker hands an error
    on with a traceback."""

    def __str__(self) -> str:
        text = super().__str__().rstrip()
        return text.rpartition(f'{type(self).__name__}: ')[2]


class NoReadableImageError(TooManyUnreadableError):
    """One image after another cannot be read; raised on the rank that met
    them, maybe alone."""


def reason_of(error: Exception) -> str:
    """Which of ``REASONS`` an error of loading an image stands for."""
    if isinstance(error, UnreadableImageError):
        return error.reason
    if isinstance(error, FileNotFoundError):
        return MISSING
    return NOT_READ if isinstance(error, OSError) else NO_IMAGE


def check_pixels(height: int, width: int) -> None:
    """Refuse an image that may take all memory: more than twice Pillow's
    ``Image.MAX_IMAGE_PIXELS``, 179 million pixels, where Pillow refuses too.

    Raises:
        UnreadableImageError: It has more.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise UnreadableImageError(TOO_LARGE, f'{width} x {height}')


def decode_image(data: bytes) -> np.ndarray:
    """What the host's ``LoadImageFromFile`` gives, (H, W, 3) uint8, BGR:
    turned as its EXIF says, 16 bits reduced to 8, and grey or CMYK made BGR.

    Raises:
        UnreadableImageError: It is not an image, not a whole one, or too
            large.
    """
    if not data:
        raise UnreadableImageError(EMPTY)
    _check_header(data)
    if is_jpeg(data):
        _check_end(data)
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as e:
        raise UnreadableImageError(NO_IMAGE, ' '.join(str(e).split())) from e
    if pixels is None:
        raise UnreadableImageError(NO_IMAGE)
    return pixels


def _check_header(data: bytes) -> None:
    """Refuse what is too large before memory is taken for it."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
        except Image.DecompressionBombError as e:
            raise UnreadableImageError(TOO_LARGE, str(e)) from None
        except Exception:  # OpenCV may know better, and has a limit too
            return
    check_pixels(height, width)


def _check_end(data: bytes) -> None:
    """Refuse a JPEG that is cut off: some versions of OpenCV fill it up with
    grey. At an eighth of the size, which takes a fifth of the time."""
    try:
        space = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(
            data,
            colorspace='CMYK' if space in ('CMYK', 'YCCK') else 'GRAY',
            fastdct=True, min_height=1, min_width=1, min_factor=8)
    except ValueError as e:
        if is_cut_off(e):
            raise UnreadableImageError(CUT_OFF) from None
        # A fault that another decoder can get over, such as a stray byte.


def is_jpeg(data: bytes) -> bool:
    """Whether it begins as a JPEG; simplejpeg's also looks at the end."""
    return data[:3] == b'\xff\xd8\xff'


def is_cut_off(error: ValueError) -> bool:
    """Whether simplejpeg's error says that the file ends too early."""
    return 'remature end' in str(error)
