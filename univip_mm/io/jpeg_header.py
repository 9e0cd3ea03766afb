"""The segments before the pixels of a JPEG, read as a decoder reads them."""
from typing import NamedTuple

from .exif import orientation_of

_START_OF_SCAN, _APP1 = 0xda, 0xe1
_SEQUENTIAL = (0xc0, 0xc1)  # start of a frame, without progressive scans


class JpegHeader(NamedTuple):
    """What the segments before the pixels say.

    Attributes:
        upright (bool): The segments are valid, and no EXIF orientation
            changes the image.
        single_scan (bool): The first scan has all pixels. Decoders refuse
            further scans.
    """
    upright: bool
    single_scan: bool


def read_segments(data: bytes) -> JpegHeader:
    """Read all segments of a JPEG up to its first scan."""
    at, components = 2, None
    while at + 4 <= len(data) and data[at] == 0xff:
        code = data[at + 1]
        if code == _START_OF_SCAN:
            return JpegHeader(True, data[at + 4:at + 5] == components)
        length = data[at + 2] << 8 | data[at + 3]
        if not 0xc0 <= code < 0xff or length < 2:
            break
        if code in _SEQUENTIAL:
            components = data[at + 9:at + 10]
        elif code == _APP1 and data[at + 4:at + 10] == b'Exif\0\0' and (
                orientation_of(data[at + 10:at + 2 + length]) != 1):
            break
        at += 2 + length
    return JpegHeader(False, False)
