"""Check that the sizes in a json are those of the image files."""
import logging
from collections.abc import Iterator, Sequence

from mmengine.logging import print_log

from ..io.coco_json import image_path, sample_images
from ..io.files import NotRegularError
from ..io.images import read_size
from ..proposals import ProposalFile
from ..utils.text import printable


def check_boxes_fit(images: Sequence[dict], folder: str, ann_file: str,
                    proposals: ProposalFile) -> None:
    """Raise ValueError if imported proposals are of other image sizes.

    Imported boxes refer to the sizes in the json. The headers of about ten
    files are compared. A few files that differ, for example by their EXIF
    orientation, are accepted.
    """
    if not str(proposals.meta.get('method', '')).startswith('imported'):
        return
    checked = list(_sizes(images, folder))
    other = [x for x in checked if x[1] != x[2]]
    if 2 * len(other) > len(checked):
        raise ValueError(
            f"the proposals of '{proposals.path}' were imported with the sizes"
            f" in '{ann_file}', but {len(other)} of {len(checked)} files have "
            f'other sizes ({_describe(other[0])}): import them with the sizes '
            'of these files, or run tools/generate_proposals.py')


def check_dropped(dropped: Sequence[dict], folder: str, ann_file: str,
                  min_image_size: int) -> None:
    """Warn if images are dropped by their json, but their files are large.

    ``dropped`` are the images with a side below ``min_image_size`` in the
    json. The headers of about ten of these files are read.
    """
    for image, said, size in _sizes(dropped, folder):
        if min(size) >= min_image_size:
            print_log(
                f"'{printable(ann_file)}' has wrong sizes "
                f'({_describe((image, said, size))}): correct width and '
                'height or remove them, so that no large image is dropped',
                logger='current', level=logging.WARNING)
            return


def _sizes(images: Sequence[dict],
           folder: str) -> Iterator[tuple[dict, tuple, tuple]]:
    """Yield image, size in the json and size of the file, of a sample."""
    for image in sample_images([x for x in images if 'width' in x]):
        try:
            size = read_size(image_path(folder, image['file_name']))
        except NotRegularError:
            continue
        if size is not None:
            yield image, (image['width'], image['height']), size


def _describe(sizes: tuple[dict, tuple, tuple]) -> str:
    image, said, size = sizes
    return (f"the first: id {image['id']}, {said[0]} x {said[1]} in the json, "
            f'{size[0]} x {size[1]} in the file')
