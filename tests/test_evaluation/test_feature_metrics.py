import numpy as np
import pytest
import torch

from univip_mm.evaluation.feature_metrics import KNNAccuracy, LinearSVMProbe
from univip_mm.evaluation.svm import svm_average_precision


def sample(i, split, feature, label, difficult=None):
    return dict(feature=torch.tensor(feature), gt_label=torch.tensor(label),
                gt_label_difficult=difficult, split=split,
                img_path=f'{split}{i}')


def evaluate(metric, samples, classes=('cat', 'dog')):
    metric.dataset_meta = dict(classes=list(classes))
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def clusters(number, split, seed):
    """Yield two clusters, one per class; one label in six is wrong."""
    rng = np.random.default_rng(seed)
    for i in range(number):
        label = i % 2
        feature = rng.normal(scale=0.1, size=3) + np.eye(3)[label]
        yield sample(i, split, feature.tolist(), [label ^ (i % 6 == 5)])


def test_knn_accuracy_for_each_k():
    found = evaluate(KNNAccuracy(k=(1, 3)), [
        sample(0, 'train', [1., 0.], [0]), sample(1, 'train', [0., 1.], [1]),
        sample(2, 'train', [.1, 1.], [1]), sample(0, 'val', [2., .1], [0]),
        sample(1, 'val', [0., 3.], [1]), sample(2, 'val', [1., 0.], [1])])
    assert found == {'knn/top1_k=1': pytest.approx(200 / 3),
                     'knn/top1_k=3': pytest.approx(200 / 3)}


def test_knn_accuracy_outvotes_wrong_labels():
    found = evaluate(KNNAccuracy(k=(1, 20)), [
        *clusters(60, 'train', 0),
        *(x for x in clusters(60, 'val', 1)
          if int(x['img_path'][3:]) % 6 != 5)])
    assert found['knn/top1_k=1'] < found['knn/top1_k=20'] == 100


def test_linear_svm_probe_fits_train_scores_val():
    rng = np.random.default_rng(0)
    samples, sides = [], []
    for split in ('train', 'val'):
        features = rng.normal(size=(30, 5)).astype(np.float32)
        labels = (features[:, :2] > 0).astype(int)
        samples += [
            sample(i, split, x.tolist(), np.flatnonzero(y).tolist(),
                   difficult=[1] if i == 4 else None)
            for i, (x, y) in enumerate(zip(features, labels))]
        # Difficult objects are ignored unless the image has another one.
        if labels[4, 1] == 0:
            labels[4, 1] = -1
        sides += [features, labels]
    found = evaluate(LinearSVMProbe(shots=(1, 2), samples=2, n_jobs=1),
                     samples)
    expected = 100 * svm_average_precision(*sides).mean()
    assert found['svm/mAP'] == pytest.approx(expected)
    assert found['svm/mAP_low_shot'] == pytest.approx(
        (found['svm/mAP_k=1'] + found['svm/mAP_k=2']) / 2)
    assert list(evaluate(LinearSVMProbe(shots=(), n_jobs=1), samples)) == [
        'svm/mAP']


def test_feature_metric_rejects_empty_split():
    with pytest.raises(ValueError, match="KNNAccuracy: .* has split 'val'"):
        evaluate(KNNAccuracy(), [sample(0, 'train', [1.], [0])])


def test_feature_metric_rejects_missing_classes():
    metric = KNNAccuracy()
    metric.process(None, [sample(0, 'train', [1.], [0]),
                          sample(0, 'val', [1.], [0])])
    with pytest.raises(ValueError, match="KNNAccuracy: .*'classes'"):
        metric.evaluate(2)
