import io
from typing import Optional

import numpy as np
import simplejpeg
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from PIL import Image

from ...io.images import (
    CUT_OFF,
    MISSING,
    NO_IMAGE,
    NOT_READ,
    UnreadableImageError,
    check_pixels,
    decode_image,
    is_cut_off,
    is_jpeg,
)
from ...registry import TRANSFORMS

_ORIENTATION = 0x0112  # its tag in an EXIF


class EncodedImage:
    """An image whose size is known and whose pixels are decoded when asked
    for, by then knowing at which scale.

    JPEGs are decoded by simplejpeg (libjpeg-turbo, as OpenCV's; the pixels
    are the same, in less time). What it does not do as OpenCV does is left to
    the host's decoder: other formats, CMYK, and images that their EXIF turns.

    Args:
        data (bytes): The file's content.
        reduce (bool): Whether :meth:`decode` may give fewer pixels.
        fast_dct (bool): Whether to decode by the faster, less exact integer
            transform.

    Attributes:
        shape (tuple[int, int, int]): (H, W, 3) of the whole image.

    Raises:
        UnreadableImageError: It is not an image, or too large.
    """

    def __init__(self, data: bytes, reduce: bool = False,
                 fast_dct: bool = False) -> None:
        self._data = data
        self._reduce = reduce
        self._fast_dct = fast_dct
        self._pixels = None
        if _is_plain_jpeg(data):
            try:
                height, width, space, _ = simplejpeg.decode_jpeg_header(data)
            except ValueError as e:
                raise UnreadableImageError(NO_IMAGE, str(e)) from None
            check_pixels(height, width)
            if space in ('YCbCr', 'Gray'):
                self.shape = (height, width, 3)
                return
        self._pixels = decode_image(data)
        self.shape = self._pixels.shape

    def decode(self, smallest_scale: float = 1.0) -> np.ndarray:
        """The pixels, (H, W, 3) uint8, BGR.

        Args:
            smallest_scale (float): With ``reduce``, the image may have four
                eighths of its size or less, but not less than this share.
                Defaults to 1.0.

        Raises:
            UnreadableImageError: The file ends before the image does.
        """
        if self._pixels is not None:
            return self._pixels
        options = dict(colorspace='BGR', fastdct=self._fast_dct)
        if self._reduce and smallest_scale <= 0.5:
            height, width = self.shape[:2]
            options.update(
                min_height=int(np.ceil(smallest_scale * height)),
                min_width=int(np.ceil(smallest_scale * width)),
                min_factor=2)
        try:
            return simplejpeg.decode_jpeg(self._data, **options)
        except ValueError as e:
            if is_cut_off(e):
                raise UnreadableImageError(CUT_OFF) from None
            # A fault that a decoder can get over, such as a stray byte.
            return decode_image(self._data)


@TRANSFORMS.register_module()
class LoadEncodedImage(BaseTransform):
    """Read an image file, and leave the decoding to ``OverlapSceneCrop``.

    Takes the place of the host's ``LoadImageFromFile`` before
    :class:`OverlapSceneCrop`. Its pixels are the same with the defaults, in
    less time. See ``docs/performance.md`` for what the options gain and what
    they change.

    Required key: ``img_path``. Added keys: ``img`` (:class:`EncodedImage`),
    ``img_shape`` and ``ori_shape``, (H, W).

    Args:
        reduce (bool): Whether a JPEG may be decoded at four eighths of its
            size or less where no view of it needs more pixels. Pays for
            photographs much larger than the views. Defaults to False.
        fast_dct (bool): Whether to take libjpeg's faster, less exact integer
            transform. Defaults to False.
        backend_args (dict, optional): As in the host's. Defaults to None.

    Raises:
        UnreadableImageError: The file cannot be read, or is not an image.
    """

    def __init__(self, reduce: bool = False, fast_dct: bool = False,
                 backend_args: Optional[dict] = None) -> None:
        self.reduce = reduce
        self.fast_dct = fast_dct
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Read the file and its header."""
        try:
            data = get(results['img_path'], backend_args=self.backend_args)
        except OSError as e:
            missing = isinstance(e, FileNotFoundError)
            raise UnreadableImageError(
                MISSING if missing else NOT_READ, str(e)) from e
        image = EncodedImage(data, self.reduce, self.fast_dct)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(reduce={self.reduce}, '
                f'fast_dct={self.fast_dct})')


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether it is a JPEG that no EXIF orientation turns."""
    if not is_jpeg(data):
        return False
    if not _has_exif(data):
        return True
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(_ORIENTATION, 1) == 1
    except Exception:  # an EXIF that is broken: let the host's decoder see
        return False


def _has_exif(data: bytes) -> bool:
    """Whether one of the segments before a JPEG's first table is an EXIF."""
    at = 2
    while at + 1 < len(data) and data[at] == 0xff and (
            0xe0 <= data[at + 1] <= 0xef or data[at + 1] == 0xfe):
        if data[at + 4:at + 10] == b'Exif\0\0':
            return True
        at += 2 + int.from_bytes(data[at + 2:at + 4], 'big')
    return False
