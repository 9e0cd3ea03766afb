"""Registered metrics of frozen features: k-NN accuracy and linear SVMs."""
from collections.abc import Sequence

import numpy as np
import torch

from ..registry import METRICS
from . import svm
from .base import FrozenFeatureMetric
from .knn import knn_predict
from .metrics import IGNORED, PRESENT


@METRICS.register_module()
class KNNAccuracy(FrozenFeatureMetric):
    """Top-1 accuracy of a weighted k-NN classifier for single-label data.

    Args:
        k (Sequence[int]): Numbers of neighbours. Defaults to (10, 20, 100,
            200), as in MMSelfSup's benchmark.
        temperature (float): Temperature of the vote weights. Defaults to 0.07.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.
    """
    default_prefix = 'knn'

    def __init__(self, k: Sequence[int] = (10, 20, 100, 200),
                 temperature: float = 0.07, **kwargs) -> None:
        super().__init__(**kwargs)
        self.k = tuple(k)
        self.temperature = temperature

    def pack_labels(self, sample: dict) -> torch.Tensor:
        """Return the class index of a data sample, (1,)."""
        return torch.as_tensor(sample['gt_label']).cpu()

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Return ``top1_k=K`` for each k, in percent."""
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        (train, train_labels), (test, test_labels) = (
            (features.to(device), labels.flatten().to(device))
            for features, labels in self.split_results(results))
        metrics = {}
        for k in self.k:
            votes = knn_predict(train, train_labels, test, self.num_classes, k,
                                self.temperature)
            correct = (votes.argmax(1) == test_labels).float().mean()
            metrics[f'top1_k={k}'] = 100 * correct.item()
        return metrics


@METRICS.register_module()
class LinearSVMProbe(FrozenFeatureMetric):
    """Mean average precision of linear SVMs for multi-label data, in percent.

    ``mAP`` is trained on all train images, and ``mAP_k=K`` on K images per
    class; ``mAP_low_shot`` is the mean over all K. The optional field
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

    def __init__(self, costs: Sequence[float] = svm.COSTS,
                 shots: Sequence[int] = svm.SHOTS, samples: int = 5,
                 n_jobs: int = -1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.options = dict(costs=tuple(costs), n_jobs=n_jobs)
        self.shots = tuple(shots)
        self.samples = samples

    def pack_labels(self, sample: dict) -> torch.Tensor:
        """Return 1 present, 0 absent, -1 ignored for each class, (L,)."""
        labels = torch.zeros(self.num_classes, dtype=torch.long)
        difficult = sample.get('gt_label_difficult')
        if difficult is not None:
            labels[torch.as_tensor(difficult).long()] = IGNORED
        # Overwrites IGNORED if the image also has a regular object.
        labels[torch.as_tensor(sample['gt_label']).cpu().long()] = PRESENT
        return labels

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Fit on train, score on val, and return the metrics in percent."""
        data = [array.numpy() for half in self.split_results(results)
                for array in half]
        metrics = dict(mAP=np.nanmean(
            svm.svm_average_precision(*data, **self.options)))
        if self.shots:
            low_shot = svm.low_shot_average_precision(
                *data, shots=self.shots, samples=self.samples, **self.options)
            metrics.update({f'mAP_k={k}': x for k, x in low_shot.items()})
            metrics['mAP_low_shot'] = np.mean(list(low_shot.values()))
        return {key: 100 * float(x) for key, x in metrics.items()}
