import itertools
import json
import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from PIL import Image

from univip_mm.evaluation import MultiLabelProbe
from univip_mm.registry import METRICS, MODELS

COLORS = dict(red=(255, 0, 0), green=(0, 255, 0), blue=(0, 0, 255))


def make_samples(splits, features, labels):
    """Return data samples as PackInputs and the model produce them."""
    samples = []
    for i, (split, feature, label) in enumerate(zip(splits, features, labels)):
        sample = DataSample(
            metainfo=dict(split=split, img_path=f'images/{i}.jpg'))
        sample.set_gt_label(np.flatnonzero(label).tolist())
        sample.set_field(torch.as_tensor(feature).float(), 'feature')
        samples.append(sample)
    return samples


def evaluate(samples, num_classes=4, **options):
    evaluator = Evaluator(MultiLabelProbe(**options))
    evaluator.dataset_meta = dict(
        classes=tuple(f'class {i}' for i in range(num_classes)))
    for start in range(0, len(samples), 7):
        evaluator.process(samples[start:start + 7])
    return evaluator.evaluate(len(samples))


def random_samples(signal, number=400, num_classes=4, seed=0):
    """Return half train, half val samples with increasingly rare classes.

    One feature per class shows the class, with the strength ``signal``.
    """
    rng = np.random.default_rng(seed)
    labels = rng.random((number, num_classes)) < 0.4 / np.arange(
        1, num_classes + 1)
    features = rng.normal(size=(number, 12))
    features[:, :num_classes] += signal * (2 * labels - 1)
    splits = ['train', 'val'] * (number // 2)
    return make_samples(splits, features, labels)


def test_probe_of_separable_features_is_near_100():
    metrics = evaluate(random_samples(signal=20))
    for classifier, metric in itertools.product(
        ('knn', 'linear'), ('mAP', 'balanced_accuracy')):
        assert metrics[f'probe/{classifier}_{metric}'] > 98


def test_probe_of_noise_features_is_near_chance():
    metrics = evaluate(random_samples(signal=0, number=1200))
    chance = metrics['probe/chance_mAP']
    assert 15 < chance < 30
    for classifier in ('knn', 'linear'):
        assert abs(metrics[f'probe/{classifier}_mAP'] - chance) < 4
        accuracy = metrics[f'probe/{classifier}_balanced_accuracy']
        assert abs(accuracy - 50) < 5


def test_probe_matches_hand_computed_metrics():
    """With k = 1, val images get the labels of the closest train image."""
    train = [[1, 0], [0, 1], [-1, 0]]
    train_labels = [[1, 0], [0, 1], [0, 1]]
    val = [[5, 0], [0, 3], [2, 0], [-1, 0]]
    val_labels = [[1, 0], [1, 1], [0, 1], [0, 0]]
    # Class 0: images 0 and 2 score 1, images 1 and 3 score 0. One of two
    # images is correct at both ranks, so the precision is 1/2, then 2/4.
    # Class 1: the same with images 1 and 3 first.
    metrics = evaluate(
        make_samples(['train'] * 3 + ['val'] * 4, train + val,
                     train_labels + val_labels),
        num_classes=2, k=1)
    assert metrics['probe/knn_mAP'] == pytest.approx(50)
    assert metrics['probe/knn_balanced_accuracy'] == pytest.approx(50)
    val_labels = [[1, 0], [0, 1], [0, 0], [0, 1]]
    # Class 0: one of the two images with score 1 is correct: precision 1/2,
    # sensitivity 1/1, specificity 2/3. Class 1: all correct.
    metrics = evaluate(
        make_samples(['train'] * 3 + ['val'] * 4, train + val,
                     train_labels + val_labels),
        num_classes=2, k=1)
    assert metrics['probe/knn_mAP'] == pytest.approx((50 + 100) / 2)
    assert metrics['probe/knn_balanced_accuracy'] == pytest.approx(
        ((100 + 200 / 3) / 2 + 100) / 2)


def test_probe_finds_rare_class():
    """One image in 30 has the class, and the features overlap.

    Images with the class are never the majority of the neighbours.
    """
    rng = np.random.default_rng(0)
    labels = (np.arange(1200) % 30 < 1)[:, None]
    features = rng.normal(size=(1200, 4)) + 4 * labels * [1, 0, 0, 0]
    metrics = evaluate(
        make_samples(['train'] * 600 + ['val'] * 600, features, labels),
        num_classes=1, k=200)
    assert metrics['probe/knn_balanced_accuracy'] > 85
    assert metrics['probe/linear_balanced_accuracy'] > 90


def test_probe_does_not_train_on_val():
    """All predictions are wrong if val labels are inverted."""
    samples = random_samples(signal=20, num_classes=1)
    for sample in samples:
        if sample.split == 'val':
            sample.set_gt_label([] if len(sample.gt_label) else [0])
    metrics = evaluate(samples, num_classes=1)
    assert metrics['probe/knn_balanced_accuracy'] < 2
    assert metrics['probe/linear_balanced_accuracy'] < 2


def test_probe_excludes_classes_constant_in_val():
    samples = random_samples(signal=20, num_classes=2)
    expected = evaluate(samples, num_classes=2)
    for sample in samples:  # class 2 in every image, class 3 in none
        sample.set_gt_label([*sample.gt_label.tolist(), 2])
    assert evaluate(samples, num_classes=4) == pytest.approx(expected)


def test_probe_scores_class_missing_in_train_as_chance():
    samples = random_samples(signal=20, num_classes=1, number=40)
    expected = evaluate(samples, num_classes=1)
    for sample in samples[1:20:2]:  # ten of the twenty val images
        sample.set_gt_label([*sample.gt_label.tolist(), 1])
    metrics = evaluate(samples, num_classes=2)
    for name in ('knn', 'linear'):
        for key, chance in (('mAP', 50), ('balanced_accuracy', 50)):
            key = f'probe/{name}_{key}'
            assert metrics[key] == pytest.approx((expected[key] + chance) / 2)


def test_probe_accepts_images_without_classes():
    samples = random_samples(signal=20)
    assert any(len(x.gt_label) == 0 for x in samples)
    assert math.isfinite(sum(evaluate(samples).values()))


def test_probe_independent_of_image_order():
    samples = random_samples(signal=1)
    shuffled = [samples[i] for i in np.random.default_rng(1).permutation(400)]
    assert evaluate(shuffled) == pytest.approx(evaluate(samples), abs=1e-2)


def test_probe_options_reach_classifiers():
    samples = random_samples(signal=1)
    default = evaluate(samples)
    for options, name in ((dict(k=1), 'knn'), (dict(temperature=9.0), 'knn'),
                          (dict(cost=1e-6), 'linear')):
        changed = evaluate(samples, **options)
        assert {
            key
            for key in default if default[key] != changed[key]
        } == {f'probe/{name}_mAP', f'probe/{name}_balanced_accuracy'}


def without(key):

    def change(samples):
        samples[3].pop(key)

    return change


def set_all(key, value):

    def change(samples):
        for sample in samples:
            sample.set_metainfo({key: value})

    return change


def set_feature(value):

    def change(samples):
        samples[3].set_field(value, 'feature')

    return change


@pytest.mark.parametrize('change, message', [
    (without('feature'), "images/3.jpg' has no 'feature': .* predict"),
    (without('gt_label'), "has no 'gt_label': .* CocoMultiLabel"),
    (without('split'), "has no 'split': .* meta_keys of PackInputs"),
    (set_all('split', 'test'),
     "split 'test', but split must be 'train' or 'val'"),
    (set_all('split', 'train'), "no test image has split 'val'"),
    (set_all('split', 'val'), "no test image has split 'train'"),
    (set_all('img_path', 'a.jpg'), "in both train and val .* 'a.jpg'"),
    (lambda samples: samples[3].set_gt_label([0, 4]),
     r'labels \[0, 4\] of .*images/3.jpg.* not all in \[0, 4\)'),
    (set_feature(torch.zeros(13)), r'shapes \[\(12,\), \(13,\)\]'),
    (set_feature(torch.full((12, ), math.nan)),
     "feature of 'images/3.jpg' is not finite"),
])  # yapf: disable
def test_probe_rejects_invalid_samples(change, message):
    samples = random_samples(signal=1, number=20)
    change(samples)
    with pytest.raises(ValueError, match=message) as error:
        evaluate(samples)
    assert '\n' not in str(error.value)


def test_probe_rejects_dataset_without_classes():
    evaluator = Evaluator(MultiLabelProbe())
    with pytest.raises(ValueError, match="metainfo has no 'classes'"):
        evaluator.process(random_samples(signal=1, number=20))


def test_probe_rejects_val_without_scorable_class():
    samples = random_samples(signal=1, number=20)
    for sample in samples:
        sample.set_gt_label([0])
    with pytest.raises(ValueError, match='none can be scored'):
        evaluate(samples)


@pytest.mark.parametrize('option', ['k', 'temperature', 'cost'])
def test_probe_rejects_option_out_of_range(option):
    with pytest.raises(ValueError, match=f'{option} is 0'):
        METRICS.build({'type': 'univip_mm.MultiLabelProbe', option: 0})


@MODELS.register_module()
class MeanColorModel(BaseModel):
    """Frozen backbone whose feature is the mean color of each quadrant."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        assert mode == 'predict' and not self.training
        images = torch.stack(inputs).float()
        features = torch.nn.functional.adaptive_avg_pool2d(images, 2)
        for sample, feature in zip(data_samples, features.flatten(1)):
            sample.set_field(feature, 'feature')
        return data_samples


def make_folder(root):
    """Write 40 images with dark or colored quadrants; a color is a class."""
    rng = np.random.default_rng(0)
    (root / 'images').mkdir()
    images, annotations = [], []
    for number in range(40):
        pixels = rng.integers(0, 60, (16, 16, 3), np.uint8)
        for category, color in enumerate(COLORS.values()):
            if rng.random() < 0.5 or category == number % 3:
                y, x = 8 * (category // 2), 8 * (category % 2)
                pixels[y:y + 8, x:x + 8] = color
                annotations.append(
                    dict(image_id=number, category_id=10 * category,
                         bbox=[x, y, 8, 8]))
        Image.fromarray(pixels).save(root / 'images' / f'{number}.png')
        images.append(dict(id=number, file_name=f'{number}.png'))
    categories = [
        dict(id=10 * i, name=name) for i, name in enumerate(COLORS)
    ]
    (root / 'instances.json').write_text(
        json.dumps(
            dict(images=images, annotations=annotations,
                 categories=categories)))


def run_test(root, **changes):
    half = dict(
        type='CocoMultiLabel',
        data_root=str(root),
        ann_file='instances.json',
        data_prefix=dict(img_path='images'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(16, 16)),
            dict(type='PackInputs', meta_keys=('img_path', 'split')),
        ])
    runner = Runner(
        model=dict(type='MeanColorModel'),
        work_dir=str(root / 'work_dir'),
        test_dataloader=dict(
            batch_size=6,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='ConcatDataset',
                datasets=[
                    dict(half, split='train', part=(0, 0.5)),
                    dict(half, split='val', part=(0.5, 1)),
                ])),
        test_evaluator=dict(type='MultiLabelProbe', k=5),
        test_cfg=dict(),
        default_scope='univip_mm',
        experiment_name=root.name,
        log_level='WARNING')
    return runner.test()


def test_probe_in_runner_test(tmp_path):
    make_folder(tmp_path)
    metrics = run_test(tmp_path)
    assert set(metrics) == {
        'probe/knn_mAP', 'probe/knn_balanced_accuracy', 'probe/linear_mAP',
        'probe/linear_balanced_accuracy', 'probe/chance_mAP'
    }
    assert metrics['probe/linear_mAP'] > 99
    assert metrics['probe/linear_balanced_accuracy'] > 99
    assert metrics['probe/knn_mAP'] > 80 > metrics['probe/chance_mAP']
