"""Base class of the metrics that fit a classifier on frozen features."""
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

SPLITS = ('train', 'val')
# Required fields of a data sample, and how to provide them.
_FIELDS = dict(
    feature="write it in the model's predict mode",
    gt_label='use a dataset with labels, such as CocoMultiLabel',
    split="use CocoMultiLabel or SetSplit, and list 'split' in meta_keys of "
    'PackInputs')


class FrozenFeatureMetric(BaseMetric):
    """Metric of a classifier fitted on split ``train`` and scored on ``val``.

    One test dataloader loads the images of both splits. Each data sample needs
    ``feature`` (C,), written by ``predict`` of the model; ``gt_label``, the
    class indices of the image; and ``split``, 'train' or 'val'.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the feature, the labels and the split of each sample.

        Args:
            data_batch (Any): Unused.
            data_samples (Sequence[dict]): B data samples as dicts.

        Raises:
            ValueError: A sample lacks a field or has an invalid value.
        """
        for sample in data_samples:
            self._check_sample(sample)
            self.results.append(
                dict(
                    feature=sample['feature'].detach().float().cpu(),
                    split=sample['split'],
                    img_path=sample.get('img_path'),
                    **self.pack_labels(sample)))

    @abstractmethod
    def pack_labels(self, sample: dict) -> dict:
        """Return the label fields to store for a data sample."""

    @property
    def num_classes(self) -> int:
        """Number of classes in the metainfo of the test dataset.

        Raises:
            ValueError: The metainfo has no classes.
        """
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                f"{type(self).__name__}: the test dataset's metainfo has no "
                "'classes': use CocoMultiLabel, or set metainfo="
                'dict(classes=[...]) in the dataset')
        return len(classes)

    def split_results(self,
                      results: list[dict]) -> tuple[list[dict], list[dict]]:
        """Return the results of the train images and of the val images.

        Args:
            results (list[dict]): Results of :meth:`process` from all ranks.

        Raises:
            ValueError: A split has no image, the splits share an image, or a
                feature is not finite or not a vector of the common size.
        """
        name = type(self).__name__
        train, val = ([x for x in results if x['split'] == split]
                      for split in SPLITS)
        for split, images in zip(SPLITS, (train, val)):
            if not images:
                raise ValueError(
                    f"{name}: no test image has split '{split}': combine a "
                    'train and a val dataset with ConcatDataset')
        shared = _paths(train) & _paths(val)
        if shared:
            raise ValueError(
                f'{name}: {len(shared)} images are in both train and val (for '
                f"example '{min(shared)}'), which inflates the score: use "
                'disjoint splits')
        shapes = {tuple(x['feature'].shape) for x in results}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1:
            raise ValueError(
                f'{name}: the features have the shapes {sorted(shapes)}, but '
                'must be vectors of one size: pool the features in the '
                "model's predict mode")
        for x in results:
            if not x['feature'].isfinite().all():
                raise ValueError(
                    f'{name}: the feature of {image_name(x)} is not finite: '
                    'the weights are broken, so use an earlier checkpoint')
        return train, val

    def _check_sample(self, sample: dict) -> None:
        name = type(self).__name__
        for key, cure in _FIELDS.items():
            if sample.get(key) is None:
                raise ValueError(
                    f"{name}: {image_name(sample)} has no '{key}': {cure}")
        if sample['split'] not in SPLITS:
            raise ValueError(
                f"{name}: {image_name(sample)} has split '{sample['split']}', "
                "but split must be 'train' or 'val'")


def image_name(sample: dict) -> str:
    """Return the quoted path of a data sample for error messages."""
    path = sample.get('img_path')
    return f"'{path}'" if path else 'a data sample'


def _paths(results: list[dict]) -> set[str]:
    return {x['img_path'] for x in results} - {None}
