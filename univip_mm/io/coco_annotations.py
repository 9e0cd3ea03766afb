"""The objects of a COCO json: annotations and categories."""
from collections.abc import Mapping
from typing import Any, Optional

from ..utils.errors import warn
from ..utils.text import excerpt
from .atomic import PathLike
from .coco_json import MAX_SIDE, Remarks, Report, whole_number

# Files of some tools have texts or null.
_CROWD = {'0': 0, '1': 1, '': 0, None: 0}


def read_categories(content: dict, ann_file: PathLike) -> dict[int, str]:
    """Return the names of the categories by id, in the order of the json.

    Args:
        content (dict): Result of ``read_coco``.
        ann_file (str or PathLike): Its file, for messages.

    Raises:
        ValueError: The json has no categories, or a category has no name or
            no whole number as its id.
    """
    categories = content.get('categories')
    if not isinstance(categories, list):
        raise ValueError(f"'{ann_file}' has no list 'categories': use an "
                         "instances json, with 'annotations' and 'categories'")
    names: dict[int, str] = {}
    for position, category in enumerate(categories):
        fields = category if isinstance(category, dict) else {}
        number, name = whole_number(fields.get('id')), fields.get('name')
        if number is None or not isinstance(name, str) or number in names:
            raise ValueError(
                f"entry {position} of 'categories' in '{ann_file}' is "
                f"{excerpt(category)}: it needs an 'id', an integer that no "
                "other category has, and a 'name'")
        names[number] = name
    return names


def read_annotations(content: dict, ann_file: PathLike,
                     categories: Optional[Mapping] = None,
                     boxes: bool = False, report: Report = warn) -> list[dict]:
    """Check the annotations of a COCO json, and return those of its images.

    Ids that are texts or floats of whole numbers are converted in place.
    Annotations of images that the json does not list are left out.

    Args:
        content (dict): Result of ``read_coco``.
        ann_file (str or PathLike): Its file, for messages.
        categories (Mapping, optional): Categories by id. If given, each
            annotation must have one of them.
        boxes (bool): Return only annotations with a ``bbox``, four finite
            numbers, and make ``iscrowd`` 0 or 1. A side can be zero or
            negative. Defaults to False.
        report (Callable): Gets one line for each kind of conversion or
            omission, with its number. Defaults to a warning in the log.

    Returns:
        list[dict]: The annotations, empty if the json has none.

    Raises:
        ValueError: ``annotations`` is not a list, or an annotation has an
            invalid ``image_id``, ``category_id``, ``bbox`` or ``iscrowd``.
    """
    annotations = content.get('annotations')
    if annotations is None:
        return []
    if not isinstance(annotations, list):
        raise ValueError(f"'annotations' in '{ann_file}' is "
                         f'{excerpt(annotations)}, but must be a list')
    listed = {image['id'] for image in content['images']}
    kept, unknown, remarks = [], set(), Remarks()
    for position, x in enumerate(annotations):
        try:
            # COCO has 860,001 annotations: one comparison per valid field.
            if type(x['image_id']) is not int:
                _convert_id(x, 'image_id', remarks)
            if x['image_id'] not in listed:
                remarks.add('annotations of images that are not listed, '
                            'ignored', f"image_id {x['image_id']}")
                continue
            if categories is not None:
                if type(x['category_id']) is not int:
                    _convert_id(x, 'category_id', remarks)
                if x['category_id'] not in categories:
                    unknown.add(x['category_id'])
            if not boxes or _has_box(x, remarks):
                kept.append(x)
        except (KeyError, TypeError, ValueError) as e:
            raise _invalid(x, position, ann_file, e) from None
    if unknown:
        raise ValueError(
            f"'{ann_file}' has annotations of the categories "
            f"{excerpt(sorted(unknown))}, which are not in 'categories': add "
            'the categories, or remove the annotations')
    remarks.send(ann_file, report)
    return kept


def _convert_id(annotation: dict, key: str, remarks: Remarks) -> None:
    number = whole_number(annotation[key])
    if number is None:
        raise ValueError(f'{key} is {excerpt(annotation[key], 40)}')
    remarks.add(f'annotations whose {key} is not an integer, read as a whole '
                'number', excerpt(annotation[key], 40))
    annotation[key] = number


def _has_box(annotation: dict, remarks: Remarks) -> bool:
    """Check ``iscrowd`` and ``bbox``; return False without a box."""
    crowd = annotation.get('iscrowd', 0)
    if crowd not in (0, 1):
        if crowd not in _CROWD:
            raise ValueError(f'iscrowd is {excerpt(crowd, 40)}')
        annotation['iscrowd'] = _CROWD[crowd]
    box = annotation.get('bbox')
    if box is None or box == []:
        remarks.add('annotations without a bbox, ignored', _name(annotation))
        return False
    try:
        x, y, w, h = box
        valid = (-MAX_SIDE <= x <= MAX_SIDE and -MAX_SIDE <= y <= MAX_SIDE
                 and -MAX_SIDE <= w <= MAX_SIDE and -MAX_SIDE <= h <= MAX_SIDE)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f'bbox is {excerpt(box, 60)}, not 4 numbers x, y, '
                         'width, height in pixels')
    if w <= 0 or h <= 0:
        remarks.add('annotations whose bbox has no area',
                    f'{_name(annotation)}, {excerpt(box, 60)}')
    return True


def _name(annotation: dict) -> str:
    return (f"id {excerpt(annotation.get('id'), 20)}, image_id "
            f"{annotation['image_id']}")


def _invalid(annotation: Any, position: int, ann_file: PathLike,
             error: Exception) -> ValueError:
    """Return the error of an annotation, with its position and its image."""
    where = f"annotation {position} of '{ann_file}'"
    if not isinstance(annotation, dict):
        return ValueError(f'{where} is {excerpt(annotation)}, but must be an '
                          'object')
    known = {key: annotation[key] for key in ('id', 'image_id')
             if key in annotation}
    reason = f'it has no {error}' if isinstance(error, KeyError) else error
    return ValueError(f'{where} is invalid, {excerpt(known)}: {reason}; '
                      'correct or remove the annotation')
