"""Registered metrics of frozen features: k-NN accuracy and linear SVMs."""
from collections.abc import Sequence

import numpy as np
import torch

from ..registry import METRICS
from .base import FrozenFeatureMetric
from .knn import knn_predict
from .metrics import IGNORED, PRESENT
from .svm import (
    COSTS,
    SHOTS,
    low_shot_average_precision,
    svm_average_precision,
)


@METRICS.register_module()
class KNNAccuracy(FrozenFeatureMetric):
    """Top-1 accuracy of a weighted k-NN classifier for single-label data.

    Args:
        k (Sequence[int]): Numbers of neighbors. Defaults to (10, 20, 100,
            200), as in MMSelfSup's benchmark.
        temperature (float): Temperature of the vote weights. Defaults to 0.07.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.
    """
    default_prefix = 'knn'

    def __init__(self,
                 k: Sequence[int] = (10, 20, 100, 200),
                 temperature: float = 0.07,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.k = tuple(k)
        self.temperature = temperature

    def pack_labels(self, sample: dict) -> dict:
        """Return the class index of a data sample."""
        return dict(labels=torch.as_tensor(sample['gt_label']).cpu())

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Return ``top1_k=K`` for each k, in percent."""
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        (train_features, train_labels), (test_features, test_labels) = (
            (torch.stack([x['feature'] for x in images]).to(device),
             torch.cat([x['labels'] for x in images]).to(device))
            for images in self.split_results(results))
        metrics = {}
        for k in self.k:
            votes = knn_predict(train_features, train_labels, test_features,
                                self.num_classes, k, self.temperature)
            correct = (votes.argmax(1) == test_labels).float().mean()
            metrics[f'top1_k={k}'] = 100 * correct.item()
        return metrics


@METRICS.register_module()
class LinearSVMProbe(FrozenFeatureMetric):
    """Mean average precision of linear SVMs for multi-label data.

    A low-shot version trains on a few images per class. The optional field
    ``gt_label_difficult`` has the classes of an image's difficult objects.
    They are ignored, unless the image also has another object of the class.

    Args:
        costs (Sequence[float]): Candidate costs; cross-validation selects one
            for each class. Defaults to (1, 10, 100).
        shots (Sequence[int]): Images per class of the low-shot version; empty
            to skip this version. Defaults to (1, 2, 4, 8, 16, 32, 64, 96).
        samples (int): Random subsets for each number of shots. Defaults to 5.
        n_jobs (int): Number of processes; -1 uses all cores. Defaults to -1.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.
    """
    default_prefix = 'svm'

    def __init__(self,
                 costs: Sequence[float] = COSTS,
                 shots: Sequence[int] = SHOTS,
                 samples: int = 5,
                 n_jobs: int = -1,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.costs = tuple(costs)
        self.shots = tuple(shots)
        self.samples = samples
        self.n_jobs = n_jobs

    def pack_labels(self, sample: dict) -> dict:
        """Return the classes of a data sample, and the difficult ones."""
        difficult = sample.get('gt_label_difficult')
        return dict(
            labels=torch.as_tensor(sample['gt_label']).cpu(),
            difficult=torch.as_tensor(
                [] if difficult is None else difficult).long())

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Fit on train and score on val.

        Args:
            results (list[dict]): Results of :meth:`process` from all ranks.

        Returns:
            dict[str, float]: ``mAP``, ``mAP_k=K`` for each number of shots,
            and their mean ``mAP_low_shot``, in percent.
        """
        train, val = self.split_results(results)
        data = (*self._arrays(train), *self._arrays(val))
        precision = svm_average_precision(
            *data, costs=self.costs, n_jobs=self.n_jobs)
        metrics = dict(mAP=100 * float(np.nanmean(precision)))
        if self.shots:
            low_shot = low_shot_average_precision(
                *data, shots=self.shots, samples=self.samples,
                costs=self.costs, n_jobs=self.n_jobs)
            metrics.update(
                {f'mAP_k={k}': 100 * x for k, x in low_shot.items()})
            metrics['mAP_low_shot'] = 100 * float(
                np.mean(list(low_shot.values())))
        return metrics

    def _arrays(self, results: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        labels = np.zeros((len(results), self.num_classes), int)
        for row, result in zip(labels, results):
            row[result['difficult'].numpy()] = IGNORED
            # Overwrites IGNORED if the image also has a regular object.
            row[result['labels'].long().numpy()] = PRESENT
        return torch.stack([x['feature'] for x in results]).numpy(), labels
