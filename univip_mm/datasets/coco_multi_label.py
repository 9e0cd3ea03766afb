import os
from collections.abc import Sequence
from typing import Optional

from mmengine.dataset import BaseDataset

from ..io.coco_json import read_coco
from ..registry import DATASETS

SPLITS = ('train', 'val')


@DATASETS.register_module()
class CocoMultiLabel(BaseDataset):
    """The annotated images of a COCO instances json, each with its classes.

    A sample holds ``img_path``, ``img_id``, ``sample_idx``, ``gt_label``, the
    ascending indices of the classes that the image has an annotation of
    (crowds count too), and ``split``. Images come in the order of their ids;
    those without an annotation are left out. ``metainfo['classes']`` are the
    names of the json's categories in the order of their ids.

    A train and a val one, joined by ``ConcatDataset``, are the test set of
    :class:`MultiLabelProbe`. Their jsons must have the same categories. From
    one json, ``part`` takes both.

    Args:
        ann_file (str): COCO instances json, below ``data_root``.
        data_root (str): Folder of the data set. Defaults to ''.
        data_prefix (dict): ``img_path`` is the folder of the images, below
            ``data_root``. Defaults to ``dict(img_path='')``.
        split (str): What the images are for, 'train' or 'val'. Defaults to
            'train'.
        part (Sequence[float]): From which to which share of the annotated
            images to take, in the order of their ids; ``(0, 0.5)`` and
            ``(0.5, 1)`` are the two halves, with no image in both. Defaults
            to (0, 1).
        pipeline (Sequence): Transforms. Defaults to ().
        **kwargs: For :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: There is no ``ann_file``.
        ValueError: It is no COCO instances json; ``split`` is unknown;
            ``part`` is no part of (0, 1), or has no image.
    """

    def __init__(self,
                 ann_file: str,
                 data_root: str = '',
                 data_prefix: Optional[dict] = None,
                 split: str = 'train',
                 part: Sequence[float] = (0, 1),
                 pipeline: Sequence = (),
                 **kwargs) -> None:
        if split not in SPLITS:
            raise ValueError(f"CocoMultiLabel: split is '{split}', but must "
                             "be 'train' or 'val'")
        if len(part) != 2 or not 0 <= part[0] < part[1] <= 1:
            raise ValueError(
                f'CocoMultiLabel: part is {part}, but must be two ascending '
                'shares in [0, 1], such as (0, 0.5)')
        self.split = split
        self.part = tuple(part)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            pipeline=list(pipeline),
            **kwargs)

    def load_data_list(self) -> list[dict]:
        """The annotated images of the part, with their classes."""
        content = read_coco(self.ann_file)
        labels = self._read_labels(content)
        images = sorted((x for x in content['images'] if x['id'] in labels),
                        key=lambda x: x['id'])
        if not images:
            raise ValueError(f"no image of '{self.ann_file}' has an "
                             'annotation: give an instances json')
        # Rounded alike, so that parts that meet share no image.
        first, end = (round(share * len(images)) for share in self.part)
        if first == end:
            raise ValueError(
                f'CocoMultiLabel: the part {self.part} of the {len(images)} '
                f"annotated images of '{self.ann_file}' has no image: widen "
                'it')
        folder = self.data_prefix.get('img_path', '')
        return [
            dict(
                img_path=os.path.join(folder, image['file_name']),
                img_id=image['id'],
                gt_label=sorted(labels[image['id']]),
                split=self.split) for image in images[first:end]
        ]

    def _read_labels(self, content: dict) -> dict[int, set]:
        """Indices of the classes of each image id that has an annotation.
        Sets the metainfo."""
        try:
            names = {x['id']: x['name'] for x in content['categories']}
            index = {category: i for i, category in enumerate(sorted(names))}
            labels: dict[int, set] = {}
            for annotation in content['annotations']:
                labels.setdefault(annotation['image_id'],
                                  set()).add(annotation['category_id'])
        except (KeyError, TypeError) as e:
            raise ValueError(
                f"'{self.ann_file}' has no labels ({type(e).__name__}: {e}): "
                "give an instances json, with 'annotations' and 'categories'"
            ) from None
        unknown = set().union(*labels.values()) - set(index)
        if unknown:
            raise ValueError(
                f"'{self.ann_file}' has annotations of the categories "
                f"{sorted(unknown)}, which its 'categories' lack: add them, "
                'or drop the annotations')
        self._metainfo['classes'] = tuple(names[x] for x in index)
        return {
            image: {index[x]
                    for x in categories}
            for image, categories in labels.items()
        }
