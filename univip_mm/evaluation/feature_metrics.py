"""Metrics that fit a classifier on the frozen features of one split and score
it on another's."""
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from ..registry import METRICS
from .knn import knn_predict
from .multi_label_probe import check_sample, check_splits
from .svm import (
    COSTS,
    IGNORED,
    PRESENT,
    SHOTS,
    low_shot_average_precision,
    svm_average_precision,
)


class _FeatureMetric(BaseMetric):
    """Keeps the feature, the labels and the split of each data sample."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            check_sample(sample)
            difficult = sample.get('gt_label_difficult')
            self.results.append(
                dict(
                    feature=sample['feature'].detach().float().cpu(),
                    labels=torch.as_tensor(sample['gt_label']).cpu(),
                    difficult=torch.as_tensor(
                        [] if difficult is None else difficult).long(),
                    split=sample['split'],
                    img_path=sample.get('img_path')))

    def _num_classes(self) -> int:
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                f"{type(self).__name__}: the test data set's metainfo has no "
                "'classes': give metainfo=dict(classes=[...]) to it")
        return len(classes)


@METRICS.register_module()
class KNNAccuracy(_FeatureMetric):
    """Accuracy of a vote of the nearest neighbours, single-label.

    Args:
        k (Sequence[int]): Numbers of neighbours. Defaults to (10, 20, 100,
            200), those of MMSelfSup's benchmark.
        temperature (float): Of the votes' weights. Defaults to 0.07.
    """
    default_prefix = 'knn'

    def __init__(self,
                 k: Sequence[int] = (10, 20, 100, 200),
                 temperature: float = 0.07,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.k = tuple(k)
        self.temperature = temperature

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """``top1_k=K`` for each k, in percent."""
        check_splits(results)
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        (features, labels), (queries, answers) = (
            (torch.stack([x['feature'] for x in results
                          if x['split'] == split]).to(device),
             torch.cat([x['labels'] for x in results
                        if x['split'] == split]).to(device))
            for split in ('train', 'val'))
        metrics = {}
        for k in self.k:
            votes = knn_predict(features, labels, queries,
                                self._num_classes(), k, self.temperature)
            right = (votes.argmax(1) == answers).float().mean()
            metrics[f'top1_k={k}'] = 100 * right.item()
        return metrics


@METRICS.register_module()
class LinearSVMProbe(_FeatureMetric):
    """Mean average precision of linear support vector machines, multi-label,
    and of the same with few images of each class.

    Args:
        costs (Sequence[float]): To choose from, for each class by cross
            validation. Defaults to (1, 10, 100).
        shots (Sequence[int]): Images of each class in the low-shot version;
            empty for none. Defaults to (1, 2, 4, 8, 16, 32, 64, 96).
        samples (int): Draws for each number of shots. Defaults to 5.
        n_jobs (int): Processes; -1 takes all cores. Defaults to -1.
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

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """``mAP``, ``mAP_k=K`` for each number of shots and their mean
        ``mAP_low_shot``, in percent."""
        check_splits(results)
        sides = [
            array for split in ('train', 'val')
            for array in self._arrays([x for x in results
                                       if x['split'] == split])
        ]
        precision = svm_average_precision(
            *sides, costs=self.costs, n_jobs=self.n_jobs)
        metrics = dict(mAP=100 * float(np.nanmean(precision)))
        if self.shots:
            few = low_shot_average_precision(
                *sides, shots=self.shots, samples=self.samples,
                costs=self.costs, n_jobs=self.n_jobs)
            metrics.update(
                {f'mAP_k={k}': 100 * value for k, value in few.items()})
            metrics['mAP_low_shot'] = 100 * float(np.mean(list(few.values())))
        return metrics

    def _arrays(self, results: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        labels = np.zeros((len(results), self._num_classes()), int)
        for row, result in zip(labels, results):
            # An image with both has the class.
            row[result['difficult'].numpy()] = IGNORED
            row[result['labels'].long().numpy()] = PRESENT
        return torch.stack([x['feature'] for x in results]).numpy(), labels
