"""Registered metric of frozen features: multi-label k-NN and linear probes."""
from typing import Optional

import torch
from mmengine.logging import print_log

from ..registry import METRICS
from .base import FrozenFeatureMetric, image_name
from .knn import knn_scores
from .linear import linear_scores
from .metrics import (
    average_precision,
    balanced_accuracy,
    chance_average_precision,
)


@METRICS.register_module()
class MultiLabelProbe(FrozenFeatureMetric):
    """Multi-label classification of frozen features by k-NN and linear probes.

    Both classifiers are fitted on the ``train`` split and scored on ``val``.
    No hyperparameter is tuned on ``val``. All metrics are in percent. They are
    means over the classes that some, but not all, val images have, because the
    other classes cannot be ranked. A class without train images counts, with
    the score of a random classifier.

    ============================ ===========================================
    ``knn_mAP``                  Mean average precision, no interpolation, of
    ``linear_mAP``               the val images ranked by score.
    ``chance_mAP``               Expected mAP of a random ranking.
    ``knn_balanced_accuracy``    Mean of sensitivity and specificity. Chance
    ``linear_balanced_accuracy`` and constant predictions get 50.
    ============================ ===========================================

    The scores estimate probabilities. A class is predicted if its score
    exceeds the share of the class in train. This threshold is optimal for the
    balanced accuracy (Menon et al. 2013,
    https://proceedings.mlr.press/v28/menon13a.html). Plain accuracy is not
    reported: classes are rare, and predicting no class at all would score
    above 95 on COCO.

    Args:
        k (int): Number of neighbours of k-NN. Defaults to 20.
        temperature (float): Temperature of the k-NN weights. Defaults to 0.07.
        cost (float, optional): Cost of the linear classifier, see
            :func:`linear_scores`. Defaults to None.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: An option is out of range. During evaluation: a sample is
            incomplete or invalid; the splits are empty or overlap; the
            dataset has too few classes; or no class can be scored.
    """
    default_prefix = 'probe'

    def __init__(self, k: int = 20, temperature: float = 0.07,
                 cost: Optional[float] = None, **kwargs) -> None:
        super().__init__(**kwargs)
        # Fail before the features are extracted, not after.
        for name, value in dict(k=k, temperature=temperature,
                                cost=cost).items():
            if value is not None and not value > 0:
                raise ValueError(f'MultiLabelProbe: {name} is {value}, but '
                                 'must be above 0')
        self.k = k
        self.temperature = temperature
        self.cost = cost

    def pack_labels(self, sample: dict) -> torch.Tensor:
        """Return the multi-hot labels of a data sample, (L,) uint8."""
        labels = torch.as_tensor(sample['gt_label']).cpu().long()
        num_classes = self.num_classes
        if ((labels < 0) | (labels >= num_classes)).any():
            raise ValueError(
                f'MultiLabelProbe: the labels {labels.tolist()} of '
                f'{image_name(sample)} are not all in [0, {num_classes}): '
                "'gt_label' must have indices into the classes of the dataset")
        return torch.zeros(num_classes, dtype=torch.uint8).index_fill_(
            0, labels, 1)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Fit on train, score on val, and return the metrics in percent."""
        (train, train_labels), (test, test_labels) = self.split_results(
            results)
        labels = test_labels.bool().numpy()
        shares = train_labels.double().mean(dim=0).numpy()
        scores = dict(
            knn=knn_scores(train, train_labels, test, self.k,
                           self.temperature),
            linear=linear_scores(train, train_labels, test, self.cost))
        scored = labels.any(axis=0) & ~labels.all(axis=0)
        if not scored.any():
            raise ValueError(
                'MultiLabelProbe: each class is in all or in none of the '
                f'{len(labels)} val images, so none can be scored: add images '
                'to the val split')
        print_log(
            f'MultiLabelProbe: {len(train)} train and {len(labels)} val '
            f'images; scored {scored.sum()} of {len(scored)} classes, the '
            'others are in all or in none of the val images',
            logger='current')
        labels, shares = labels[:, scored], shares[scored]
        metrics = {}
        for name, score in scores.items():
            score = score.numpy()[:, scored]
            metrics[f'{name}_mAP'] = average_precision(labels, score)
            metrics[f'{name}_balanced_accuracy'] = balanced_accuracy(
                labels, score > shares)
        metrics['chance_mAP'] = chance_average_precision(labels)
        return {key: 100 * x.mean().item() for key, x in metrics.items()}
