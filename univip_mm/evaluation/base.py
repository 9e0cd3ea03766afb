"""Base class of the metrics that fit a classifier on frozen features."""
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
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
        """Check each sample, and store its feature, labels and split."""
        for sample in data_samples:
            self._check_sample(sample)
            self.results.append(dict(
                feature=sample['feature'].detach().float().cpu(),
                labels=self.pack_labels(sample), split=sample['split'],
                img_path=sample.get('img_path')))

    @abstractmethod
    def pack_labels(self, sample: dict) -> torch.Tensor:
        """Return the labels of a data sample, with one shape for all."""

    @property
    def num_classes(self) -> int:
        """Number of classes in the metainfo of the test dataset."""
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                f"{type(self).__name__}: the test dataset's metainfo has no "
                "'classes': use CocoMultiLabel, or set metainfo="
                'dict(classes=[...]) in the dataset')
        return len(classes)

    def split_results(
            self, results: list[dict]) -> list[tuple[torch.Tensor, ...]]:
        """Return (features (N, C), labels (N, ...)) of train, then of val.

        Raises:
            ValueError: A split has no image, the splits share an image, or a
                feature is not finite or not a vector of the common size.
        """
        name = type(self).__name__
        halves = [[x for x in results if x['split'] == split]
                  for split in SPLITS]
        for split, images in zip(SPLITS, halves):
            if not images:
                raise ValueError(
                    f"{name}: no test image has split '{split}': combine a "
                    'train and a val dataset with ConcatDataset')
        train, val = ({x['img_path'] for x in images} for images in halves)
        shared = (train & val) - {None}
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
        return [tuple(torch.stack([x[key] for x in images])
                      for key in ('feature', 'labels')) for images in halves]

    def _check_sample(self, sample: dict) -> None:
        where = f'{type(self).__name__}: {image_name(sample)}'
        for key, cure in _FIELDS.items():
            if sample.get(key) is None:
                raise ValueError(f"{where} has no '{key}': {cure}")
        if sample['split'] not in SPLITS:
            raise ValueError(f"{where} has split '{sample['split']}', but "
                             "split must be 'train' or 'val'")


def image_name(sample: dict) -> str:
    """Return the quoted path of a data sample for error messages."""
    path = sample.get('img_path')
    return f"'{path}'" if path else 'a data sample'
