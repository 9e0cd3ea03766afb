"""Images that are decoded on demand, at the scale in use."""
from typing import Optional

import numpy as np
import simplejpeg

from .images import (
    UnreadableImageError,
    check_pixels,
    check_scans,
    decode_image,
    is_jpeg,
    read_jpeg_header,
)
from .jpeg_header import read_segments


class EncodedImage:
    """Image file with its size; :meth:`decode` decodes the pixels.

    simplejpeg decodes JPEGs: with the defaults, the pixels are those of
    OpenCV, in less time (both use libjpeg-turbo). For other formats, CMYK,
    and images with an EXIF orientation, the decoder is
    :func:`~univip_mm.io.images.decode_image`.

    Args:
        data (bytes): Content of the file.
        reduce (bool): Allow :meth:`decode` to reduce the image. Defaults to
            False.
        fast_dct (bool): Use libjpeg's faster, less exact integer transform.
            Defaults to False.
        for_device (bool): The training device is to decode the file. Defaults
            to False.

    Attributes:
        shape (tuple[int, int, int]): (H, W, 3) of the full image.

    Raises:
        UnreadableImageError: The data is not an image, or has too many
            pixels or scans.
    """

    def __init__(self, data: bytes, reduce: bool = False,
                 fast_dct: bool = False, for_device: bool = False) -> None:
        self._data = data
        self._reduce = reduce
        self._fast_dct = fast_dct
        self._for_device = for_device
        self._pixels = None
        if not (is_jpeg(data) and self._read_shape()):
            self._pixels = decode_image(data)
            self.shape = self._pixels.shape

    @classmethod
    def of_pixels(cls, pixels: np.ndarray) -> 'EncodedImage':
        """Return an image whose pixels (H, W, 3) uint8 BGR are known."""
        image = cls.__new__(cls)
        image._pixels = pixels
        image.shape = pixels.shape
        return image

    def _read_shape(self) -> bool:
        """Read the shape of a JPEG; return False if only OpenCV reads it."""
        header = read_segments(self._data)
        if not header.upright:
            return False
        if not header.single_scan:
            check_scans(self._data)
        try:
            height, width, space = read_jpeg_header(self._data)
        except UnreadableImageError:  # for a fault that OpenCV accepts
            return False
        check_pixels(height, width)
        self.shape = (height, width, 3)
        return space in ('YCbCr', 'Gray')

    def file_for_device(self) -> Optional[bytes]:
        """Return the file if the training device is to decode it, or None.

        Only complete, upright JPEGs that are gray or YCbCr qualify. A file
        without an end is decoded here, so that the worker reports it.
        """
        if (self._pixels is None and self._for_device
                and self._data[-2:] == b'\xff\xd9'):
            return self._data
        return None

    def decode(self, min_scale: float = 1.0) -> np.ndarray:
        """Decode the image to pixels (H, W, 3) uint8, BGR.

        The result can be read-only.

        Args:
            min_scale (float): Smallest allowed scale of the result. With
                ``reduce`` and a ``min_scale`` of 0.5 or less, the result is
                reduced to the smallest multiple of 1/8 that is allowed.
                Defaults to 1.0.

        Raises:
            UnreadableImageError: The file ends before the image does.
        """
        if self._pixels is not None:
            return self._pixels
        options = dict(colorspace='BGR', fastdct=self._fast_dct)
        if self._reduce and min_scale <= 0.5:
            height, width = np.ceil(min_scale * np.array(self.shape[:2]))
            options.update(min_height=int(height), min_width=int(width),
                           min_factor=2)
        try:
            return simplejpeg.decode_jpeg(self._data, **options)
        except Exception:  # any error of a parser
            # OpenCV accepts smaller faults than a truncated file.
            return decode_image(self._data)
