from collections.abc import Sequence
from typing import Any, Optional

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from ..registry import METRICS
from .knn import knn_scores
from .linear import linear_scores
from .metrics import (
    average_precision,
    balanced_accuracy,
    chance_average_precision,
)

SPLITS = ('train', 'val')


@METRICS.register_module()
class MultiLabelProbe(BaseMetric):
    """How well frozen features tell what is in an image: k-NN and linear.

    The test set holds the images of two splits. Both classifiers are fitted
    on the features of ``train`` and scored on those of ``val``, from which
    nothing is chosen. Each data sample has ``feature`` (C,), which the model's
    ``predict`` writes, ``gt_label``, the indices of the classes in the image,
    and ``split``, 'train' or 'val'.

    All metrics are in percent, the mean over those classes that some, but not
    all, val images have (another one cannot be ranked or told apart; the log
    says how many are left out). A class that no train image has is counted,
    and gets what chance gets.

    ============================ ===========================================
    ``knn_mAP``                  Mean average precision, no interpolation, of
    ``linear_mAP``               the ranking of the val images by score.
    ``chance_mAP``               Its expected value for a random ranking.
    ``knn_balanced_accuracy``    Mean of the share of images with the class
    ``linear_balanced_accuracy`` that are said to have it and the share of
                                 those without that are said not to. Chance,
                                 and any constant answer, have 50.
    ============================ ===========================================

    An image is said to have a class where its score, an estimate of the
    probability, is above the class's share in train: the decision that is
    best for the balanced accuracy (Menon et al. 2013,
    https://proceedings.mlr.press/v28/menon13a.html). The plain accuracy of
    the labels is not given: classes are rare, and "nothing is in any image"
    would score above 95 on COCO.

    Args:
        k (int): Neighbours of k-NN. Defaults to 20.
        temperature (float): Of the neighbours' weights. Defaults to 0.07.
        cost (float, optional): Of the linear classifier, see
            :func:`linear_scores`. Defaults to None.
        **kwargs: For :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: ``k``, ``temperature`` or ``cost`` is out of its range. On
            evaluation: a sample lacks one of the fields or has an unknown
            split; a split has no image; both have the same image; the data
            set names no classes, or fewer than there are labels; a feature is
            not finite; no class can be scored.
    """

    default_prefix = 'probe'

    def __init__(self,
                 k: int = 20,
                 temperature: float = 0.07,
                 cost: Optional[float] = None,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        # Told now, rather than after all features were extracted.
        options = dict(k=k, temperature=temperature, cost=cost)
        for name, value in options.items():
            if value is not None and not value > 0:
                raise ValueError(f'MultiLabelProbe: {name} is {value}, but '
                                 'must be above 0')
        self.k = k
        self.temperature = temperature
        self.cost = cost

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the feature, the labels and the split of each sample.

        Args:
            data_batch (Any): Not looked at.
            data_samples (Sequence[dict]): B data samples as dicts.
        """
        num_classes = self._num_classes()
        for sample in data_samples:
            check_sample(sample)
            labels = torch.as_tensor(sample['gt_label']).cpu().long()
            if ((labels < 0) | (labels >= num_classes)).any():
                raise ValueError(
                    f'MultiLabelProbe: the labels {labels.tolist()} of '
                    f'{_name(sample)} are not all in [0, {num_classes}): '
                    "make 'gt_label' indices into the classes of the data "
                    'set')
            multi_hot = torch.zeros(num_classes, dtype=torch.uint8)
            multi_hot[labels] = 1
            self.results.append(
                dict(
                    feature=sample['feature'].detach().float().cpu(),
                    labels=multi_hot,
                    split=sample['split'],
                    img_path=sample.get('img_path')))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Fit on train and score on val.

        Args:
            results (list[dict]): What :meth:`process` kept of all ranks.

        Returns:
            dict[str, float]: The metrics, in percent.
        """
        check_splits(results)
        train, val = (
            tuple(
                torch.stack([x[key] for x in results if x['split'] == split])
                for key in ('feature', 'labels')) for split in SPLITS)
        scores = dict(
            knn=knn_scores(*train, val[0], self.k, self.temperature),
            linear=linear_scores(*train, val[0], self.cost))
        shares = train[1].double().mean(dim=0).numpy()
        labels = val[1].numpy().astype(bool)
        scored = labels.any(axis=0) & ~labels.all(axis=0)
        if not scored.any():
            raise ValueError(
                f'MultiLabelProbe: each class is in all or in none of the '
                f'{len(labels)} val images, so none can be scored: add images '
                'to the val split')
        print_log(
            f'MultiLabelProbe: {len(train[0])} train and {len(labels)} val '
            f'images; {scored.sum()} of {len(scored)} classes are in some, '
            'but not all val images and are scored',
            logger='current')
        labels, shares = labels[:, scored], shares[scored]
        metrics = {}
        for name, score in scores.items():
            score = score.numpy()[:, scored]
            present = score > shares
            metrics[f'{name}_mAP'] = average_precision(labels, score)
            metrics[f'{name}_balanced_accuracy'] = balanced_accuracy(
                labels, present)
        metrics['chance_mAP'] = chance_average_precision(labels)
        return {key: 100 * x.mean().item() for key, x in metrics.items()}

    def _num_classes(self) -> int:
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                "MultiLabelProbe: the test data set's metainfo has no "
                "'classes': use CocoMultiLabel, or give metainfo="
                'dict(classes=[...]) to the data set')
        return len(classes)


def check_sample(sample: dict) -> None:
    """Check that a data sample has what the probe needs.

    Raises:
        ValueError: It lacks a field, or has an unknown split.
    """
    cures = dict(
        feature="the model's predict mode has to write it",
        gt_label='use a data set with labels, such as CocoMultiLabel',
        split="use CocoMultiLabel, and name 'split' in meta_keys of "
        'PackInputs')
    for key, cure in cures.items():
        if sample.get(key) is None:
            raise ValueError(f"MultiLabelProbe: {_name(sample)} has no "
                             f"'{key}': {cure}")
    if sample['split'] not in SPLITS:
        raise ValueError(f"MultiLabelProbe: {_name(sample)} is of split "
                         f"'{sample['split']}': it has to be 'train' or 'val'")


def check_splits(results: list[dict]) -> None:
    """Check what was collected from all data samples.

    Raises:
        ValueError: A split has no image, both have the same one, or a feature
            is not finite or of another size.
    """
    for split in SPLITS:
        if all(x['split'] != split for x in results):
            raise ValueError(
                f"MultiLabelProbe: no test image is of split '{split}': join "
                'a train and a val CocoMultiLabel by ConcatDataset')
    train, val = ({
        x['img_path']
        for x in results if x['split'] == split and x['img_path'] is not None
    } for split in SPLITS)
    if train & val:
        raise ValueError(
            f'MultiLabelProbe: {len(train & val)} images are in both train '
            f"and val (one is '{min(train & val)}'), which flatters the "
            'score: give the splits other images')
    shapes = {tuple(x['feature'].shape) for x in results}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise ValueError(
            f'MultiLabelProbe: the features have the shapes {sorted(shapes)}, '
            'but must be one vector of the same size for each image: pool '
            "them in the model's predict mode")
    for x in results:
        if not x['feature'].isfinite().all():
            raise ValueError(
                f'MultiLabelProbe: the feature of {_name(x)} is not finite: '
                'the weights are broken, so take an earlier checkpoint')


def _name(sample: dict) -> str:
    path = sample.get('img_path')
    return f"'{path}'" if path else 'a data sample'
