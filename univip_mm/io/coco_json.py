"""The list of images of a COCO json."""
import hashlib
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote

from ..utils.errors import warn
from ..utils.text import excerpt
from .archive import is_file
from .atomic import PathLike
from .files import read_json

MAX_SIDE = 1_000_000  # pixels; no image is that large
NEEDS = "it needs 'images', each with 'id' and 'file_name'"

Report = Callable[[str], None]


class Remarks:
    """Numbers of converted or ignored values, each with the first example."""

    def __init__(self) -> None:
        self._numbers: Counter = Counter()
        self._examples: dict[str, str] = {}

    def add(self, kind: str, example: str, number: int = 1) -> None:
        """Count a value; ``example`` says where it is and what it is."""
        self._numbers[kind] += number
        self._examples.setdefault(kind, example)

    def send(self, path: PathLike, report: Report) -> None:
        """Report one line per kind."""
        for kind, number in self._numbers.items():
            report(f"'{path}': {number} {kind} (the first: "
                   f'{self._examples[kind]})')


def read_coco(ann_file: PathLike, report: Report = warn) -> dict:
    """Read a COCO json and check its list of images.

    In the result, the id of each image is an integer, and ``width`` and
    ``height`` are either both integers from 1 to ``MAX_SIDE``, or both
    missing. Ids and sizes that are texts or floats of whole numbers are
    converted. Other sizes, such as null, 0 or -1, are removed: then the
    pixels decide. A file name with ``..`` is normalized, so that it does not
    depend on the target of a symbolic link.

    Args:
        ann_file (str or PathLike): The json.
        report (Callable): Gets one line for each kind of conversion, with its
            number. Defaults to a warning in the log.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a COCO json, an image id is not a whole
            number or not unique, or a file name points outside the image
            folder.
    """
    path = Path(ann_file)
    content = _read_object(path)
    remarks = Remarks()
    for position, image in enumerate(content['images']):
        _check_image(image, position, path, remarks)
    _check_repeated(content['images'], path, remarks)
    remarks.send(path, report)
    return content


def whole_number(value: Any) -> Optional[int]:
    """Return the integer that 12, 12.0 or '12' stands for, otherwise None."""
    if type(value) is int:
        return value
    if isinstance(value, float) and abs(value) <= 2**53:  # not for NaN
        return int(value) if value.is_integer() else None
    # '007' is None: two texts never stand for the same id.
    if isinstance(value, str) and re.fullmatch('0|-?[1-9][0-9]{0,18}', value):
        return int(value)
    return None


def image_path(folder: PathLike, file_name: str) -> str:
    r"""Return the path of an image of a COCO json.

    Tools for Windows write ``a\b.jpg``, web tools ``a%20b.jpg``. If no file
    has that name, the path is the one with ``/``, or else the decoded one if
    that file exists. Names without a backslash or ``%`` cost no file access.
    """
    path = os.path.join(folder, file_name)
    if '\\' not in file_name and '%' not in file_name:
        return path
    slashed = file_name.replace('\\', '/')
    for name in (file_name, slashed, unquote(slashed)):
        if not points_outside(name):
            candidate = os.path.join(folder, name)
            if is_file(candidate):
                return candidate
    return os.path.join(folder, slashed)


def sample_images(images: Sequence[dict]) -> Sequence[dict]:
    """Return about ten images, at equal distances in the list."""
    return images[::max(1, len(images) // 10)]


def digest_of(images: Sequence[dict]) -> str:
    """Return a digest of the ids and file names, equal for equal images."""
    names = sorted((image['id'], image['file_name']) for image in images)
    text = json.dumps(names)
    return f'{len(images)}:{hashlib.sha256(text.encode()).hexdigest()[:16]}'


def _read_object(path: Path) -> dict:
    """Read the json; raise ValueError if it has no list of images."""
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no annotation file '{path}': check ann_file "
                                'and data_root, or --ann-file') from None
    except (OSError, ValueError) as e:
        reason = f'{type(e).__name__}: {e}'
        if isinstance(e, UnicodeDecodeError) and e.object[:2] == b'\x1f\x8b':
            reason = 'compressed with gzip: unpack it with gunzip'
        raise ValueError(
            f"'{path}' is not a COCO json ({reason}): {NEEDS}") from None
    images = content.get('images') if isinstance(content, dict) else None
    if not isinstance(images, list):
        found = (f"its 'images' is {excerpt(images)}"
                 if isinstance(content, dict) and 'images' in content else
                 f'it is {excerpt(content)}')
        raise ValueError(f"'{path}' is not a COCO json ({found}): {NEEDS}")
    if not images:
        raise ValueError(f"'{path}' lists no image")
    return content


def _check_image(image: Any, position: int, path: Path,
                 remarks: Remarks) -> None:
    """Check an entry of ``images``, and convert its fields in place."""
    if not isinstance(image, dict) or not {'id', 'file_name'} <= image.keys():
        raise ValueError(f"'{path}' is not a COCO json (entry {position} of "
                         f"'images' is {excerpt(image)}): {NEEDS}")
    image_id = image['id']
    if type(image_id) is not int:
        image['id'] = whole_number(image_id)
        remarks.add('image ids that are not integers, read as whole numbers',
                    excerpt(image_id))
    if image['id'] is None or not -2**63 <= image['id'] < 2**63:
        raise ValueError(
            f"'{path}' has the image id {excerpt(image_id)}: ids must be "
            'integers of at most 64 bits; number the images, and set image_id '
            'of the annotations to these numbers')
    # COCO has 118,287 images: the usual case is one comparison per field.
    width, height = image.get('width'), image.get('height')
    if not (type(width) is int is type(height)
            and 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        _convert_size(image, remarks)
    image['file_name'] = _checked_file_name(image, path)
    if '\\' in image['file_name']:
        remarks.add("file names with a backslash, which stands for '/' unless "
                    'a file has this name', excerpt(image['file_name']))


def _convert_size(image: dict, remarks: Remarks) -> None:
    """Make width and height integers, or remove both."""
    if 'width' not in image and 'height' not in image:
        return
    values = [image.pop(x, None) for x in ('width', 'height')]
    example = (f"id {image['id']}, width {excerpt(values[0], 20)}, height "
               f'{excerpt(values[1], 20)}')
    numbers = [whole_number(value) for value in values]
    if all(x is not None and 0 < x <= MAX_SIDE for x in numbers):
        image['width'], image['height'] = numbers
        remarks.add('images whose width or height is not an integer, read as '
                    'a whole number', example)
    else:
        remarks.add('images whose width or height is not a number of pixels, '
                    'used as images without a size', example)


def _checked_file_name(image: dict, path: Path) -> str:
    name = image['file_name']
    if not isinstance(name, str) or not name:
        raise ValueError(f"'{path}' has for image id {image['id']} the "
                         f'file_name {excerpt(name)}: it must be a string '
                         'that is not empty')
    if points_outside(name):
        raise ValueError(
            f"'{path}' has for image id {image['id']} the file_name "
            f"'{name}', which points outside the image folder: it must be a "
            'path below the folder')
    if '..' not in name:
        return name
    parts = name.replace('\\', '/')
    return posixpath.normpath(parts) if '..' in parts.split('/') else name


def points_outside(name: str) -> bool:
    """Return True for an absolute path, a URL, or a path that leaves."""
    # Fast path for nearly all names.
    if '..' not in name and ':' not in name and name[0] not in '/\\':
        return False
    parts = name.replace('\\', '/')
    return (parts.startswith('/') or '://' in name
            or posixpath.normpath(parts).split('/')[0] == '..'
            or re.match('[A-Za-z]:', name) is not None)


def _check_repeated(images: Sequence[dict], path: Path,
                    remarks: Remarks) -> None:
    """Raise ValueError for repeated ids, and count repeated file names."""
    number = len({image['id'] for image in images})
    if number < len(images):
        repeated = _first_repeated(image['id'] for image in images)
        raise ValueError(
            f"'{path}' lists {len(images)} images with only {number} "
            f'different ids (the first repeated: {repeated}): ids must be '
            'unique')
    names = len({image['file_name'] for image in images})
    if names < len(images):
        repeated = _first_repeated(image['file_name'] for image in images)
        remarks.add('images whose file an earlier image lists too, used as '
                    'images of their own', excerpt(repeated),
                    len(images) - names)


def _first_repeated(values: Iterable) -> Any:
    seen: set = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
