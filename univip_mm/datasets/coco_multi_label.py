"""Data set of COCO images with the classes of their annotations."""
import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, Optional

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..io.coco_annotations import read_annotations, read_categories
from ..io.coco_json import image_path, read_coco
from ..io.files import NotRegularError
from ..io.images import UnreadableImageError
from ..io.urls import check_not_url, join_path
from ..registry import DATASETS
from ..utils.text import printable
from .file_backends import COPY_FILE, check_loader
from .transforms.load_encoded_image import check_local_file

_report = partial(print_log, logger='current', level=logging.WARNING)


@DATASETS.register_module()
class CocoMultiLabel(BaseDataset):
    """Data set of the annotated images of a COCO instances json.

    A sample has ``img_path``, ``img_id``, ``sample_idx``, ``split`` and
    ``gt_label``, the ascending indices of the image's classes. Crowds count
    as annotations. Images are ordered by id; images without an annotation are
    dropped, and the log reports their number. ``metainfo['classes']`` are the
    category names of the json, ordered by category id.

    :class:`MultiLabelProbe` expects a train set and a val set, joined by
    ``ConcatDataset``. Their jsons must have the same categories. With
    ``part``, both can use the same json.

    Args:
        ann_file (str): COCO instances json, below ``data_root``.
        data_root (str): Folder of the data set. Defaults to ''.
        data_prefix (dict): ``img_path`` is the folder of the images, below
            ``data_root``. Defaults to ``dict(img_path='')``.
        split (str): Use of the images, 'train' or 'val'. Defaults to 'train'.
        part (Sequence[float]): Start and end of the annotated images to use,
            ordered by id, as shares of their number: ``(0, 0.5)`` and
            ``(0.5, 1)`` are two halves without a common image. Defaults to
            (0, 1).
        pipeline (Sequence): Transforms. Defaults to ().
        **kwargs: Arguments of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: ``ann_file`` does not exist.
        ValueError: The file is not a COCO instances json; ``split`` is
            unknown; ``part`` is not a range in [0, 1], or has no image.
    """

    ann_file: str
    data_prefix: dict

    def __init__(self, ann_file: str, data_root: str = '',
                 data_prefix: Optional[dict] = None, split: str = 'train',
                 part: Sequence[float] = (0, 1), pipeline: Sequence = (),
                 **kwargs) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"CocoMultiLabel: split is '{split}', but must "
                             "be 'train' or 'val'")
        if len(part) != 2 or not 0 <= part[0] < part[1] <= 1:
            raise ValueError(
                f'CocoMultiLabel: part is {part}, but must be a range in '
                '[0, 1], such as (0, 0.5)')
        self.split = split
        self.part = tuple(part)
        super().__init__(
            ann_file=ann_file, data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            pipeline=list(pipeline), **kwargs)

    def _join_prefix(self) -> None:
        """Join the paths with ``data_root``; MMEngine cannot join URLs."""
        self.ann_file = join_path(self.data_root or '', self.ann_file)
        self.data_prefix = {
            key: join_path(self.data_root or '', path)
            for key, path in self.data_prefix.items()}

    def load_data_list(self) -> list[dict]:
        """Load the annotated images of the part, with their classes."""
        check_not_url(self.ann_file, 'ann_file', COPY_FILE)
        content = read_coco(self.ann_file, _report)
        labels = self._read_labels(content)
        images = sorted((x for x in content['images'] if x['id'] in labels),
                        key=lambda x: x['id'])
        without = len(content['images']) - len(images)
        if not images:
            raise ValueError(f"no image of '{self.ann_file}' has an "
                             'annotation: use an instances json')
        if without:
            print_log(
                f'CocoMultiLabel drops {without} of {len(content["images"])} '
                f"images of '{printable(self.ann_file)}' without an "
                'annotation', logger='current')
        # Both ends are rounded in the same way, so that adjacent parts have
        # no common image.
        first, end = (round(share * len(images)) for share in self.part)
        if first == end:
            raise ValueError(
                f'CocoMultiLabel: the part {self.part} of the {len(images)} '
                f"annotated images of '{self.ann_file}' has no image: set a "
                'larger part')
        folder = self.data_prefix.get('img_path', '')
        check_loader(folder, self.pipeline.transforms,
                     'unpack the archive for CocoMultiLabel')
        return [
            dict(img_path=image_path(folder, image['file_name']),
                 img_id=image['id'], gt_label=sorted(labels[image['id']]),
                 split=self.split) for image in images[first:end]]

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on the sample ``idx``.

        Raises:
            ValueError: The image is not a regular file, or too large.
        """
        path = self.get_data_info(idx)['img_path']
        try:
            for transform in self.pipeline.transforms:
                check_local_file(transform, path)
        except (NotRegularError, UnreadableImageError) as e:
            raise ValueError(
                f"cannot read the image '{path}' ({e}): repair the file, or "
                f"remove it from '{self.ann_file}'") from None
        return super().prepare_data(idx)

    def _read_labels(self, content: dict) -> dict[int, set]:
        """Return the class indices by image id, and set the metainfo."""
        names = read_categories(content, self.ann_file)
        index = {category: i for i, category in enumerate(sorted(names))}
        labels: dict[int, set] = defaultdict(set)
        for x in read_annotations(content, self.ann_file, names,
                                  report=_report):
            labels[x['image_id']].add(index[x['category_id']])
        self._metainfo['classes'] = tuple(names[x] for x in index)
        return labels
