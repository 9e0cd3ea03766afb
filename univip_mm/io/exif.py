"""The EXIF orientation of image files, read as OpenCV reads it.

Pillow refuses or ignores some damaged EXIF data whose orientation OpenCV
applies. The boxes of the proposals would then not match the views.
"""
from typing import Literal

ORIENTATION = 0x0112


def orientation_of(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of EXIF data; 1 if it is not valid.

    ``exif`` starts with the byte order, ``II`` or ``MM``.
    """
    order: Literal['little', 'big'] = 'little' if exif[:2] == b'II' else 'big'
    if int.from_bytes(exif[2:4], order) != 42:
        return 1
    first = int.from_bytes(exif[4:8], order)
    number = int.from_bytes(exif[first:first + 2], order)
    for at in range(first + 2, min(first + 2 + 12 * number, len(exif)), 12):
        if int.from_bytes(exif[at:at + 2], order) == ORIENTATION:
            value = int.from_bytes(exif[at + 8:at + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def swaps_sides(orientation: int) -> bool:
    """Return True if an orientation exchanges the width and the height."""
    return 5 <= orientation <= 8
