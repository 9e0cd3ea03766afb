import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn

from univip_mm.downstream.heads import (
    POOLS,
    FeatureHead,
    MultiStageLinearHead,
)
from univip_mm.registry import METRICS, MODELS

CHANNELS = (4, 4, 8, 8, 8)
# Feature maps of a 224-pixel image: the stem and the four stages.
SIDES = (112, 56, 28, 14, 7)


def maps(batch=2):
    generator = torch.manual_seed(0)
    return [torch.randn(batch, c, side, side, generator=generator)
            for c, side in zip(CHANNELS, SIDES)]


def samples(labels):
    return [BaseDataElement(gt_label=torch.tensor([x])) for x in labels]


def test_multi_stage_head_pools_to_9000_values():
    head = MultiStageLinearHead(2)
    sizes = [x.in_features for x in head.classifiers]
    # POOL_DIMS of OpenSelfSup.
    assert sizes == [9216, 9216, 8192, 9216, 8192]
    for (options, side), size in zip(POOLS, SIDES):
        pooled = nn.functional.avg_pool2d(torch.ones(1, 1, size, size),
                                          **options)
        assert pooled.shape[2:] == (side, side)


def test_multi_stage_head_stage_is_independent():
    head = MultiStageLinearHead(3, CHANNELS)
    alone = MultiStageLinearHead(3, CHANNELS, stages=(4, ))
    alone.classifiers[0].load_state_dict(head.classifiers[4].state_dict())
    found, = alone(maps())
    torch.testing.assert_close(found, head(maps())[4])


def test_multi_stage_head_separates_gradients():
    head = MultiStageLinearHead(3, CHANNELS)
    losses = head.loss(maps(), samples([0, 2]))
    assert list(losses) == [f'stage{i}_loss' for i in range(5)]
    losses['stage1_loss'].backward()
    assert [x.weight.grad is not None for x in head.classifiers] == [
        False, True, False, False, False]


def test_multi_stage_head_norm_has_no_parameters():
    head = MultiStageLinearHead(3, CHANNELS, norm_cfg=dict(type='SyncBN'))
    assert all(isinstance(x, nn.SyncBatchNorm) and not list(x.parameters())
               for x in head.norms)
    with pytest.raises(ValueError, match='must be BN or SyncBN'):
        MultiStageLinearHead(3, CHANNELS, norm_cfg=dict(type='GN'))


def test_multi_stage_head_rejects_other_image_size():
    feature_maps = maps()
    feature_maps[2] = feature_maps[2][..., :20, :20]
    with pytest.raises(ValueError, match='stage 2 is 20x20: crop to 224'):
        MultiStageLinearHead(3, CHANNELS)(feature_maps)


def test_multi_stage_head_works_with_host_metric():
    head = MultiStageLinearHead(2, CHANNELS, stages=(3, 4)).eval()
    with torch.no_grad():
        for classifier, bias in zip(head.classifiers, ([9., 0.], [0., 9.])):
            classifier.weight.zero_()
            classifier.bias.copy_(torch.tensor(bias))
        found = head.predict(maps(), samples([0, 1]))
    with DefaultScope.overwrite_default_scope('univip_mm'):
        metric = METRICS.build(dict(
            type='MultiTasksMetric', task_metrics={
                name: [dict(type='Accuracy')] for name in ('stage3',
                                                           'stage4')}))
    # Stage 3 always predicts the first class, stage 4 the second class.
    metric.process(None, [x.to_dict() for x in found])
    assert metric.evaluate(2) == {'stage3_accuracy/top1': 50.0,
                                  'stage4_accuracy/top1': 50.0}
    assert found[0].stage3['pred_score'].argmax() == 0
    assert found[0].stage4['pred_score'].argmax() == 1


def predict_features(pool):
    maps = torch.randn(2, 3, 7, 7, generator=torch.manual_seed(0))
    found = FeatureHead(pool).predict(
        (None, maps), [BaseDataElement(), BaseDataElement()])
    return maps, torch.stack([x.feature for x in found])


def test_feature_head_averages_last_map():
    maps, features = predict_features(None)
    torch.testing.assert_close(features, maps.mean((2, 3)))


def test_feature_head_pools_to_grid():
    maps, features = predict_features(dict(kernel_size=6, stride=1))
    assert features.shape == (2, 3 * 2 * 2)
    torch.testing.assert_close(features[:, 0], maps[:, 0, :6, :6].mean((1, 2)))


def test_resnet_with_stem_returns_stem_first(univip_scope):
    options = dict(depth=18, base_channels=4, stem_channels=4)
    plain = MODELS.build(dict(type='ResNet', out_indices=(0, 1, 2, 3),
                              **options))
    plain.eval()  # eval() of the host returns None
    with_stem = MODELS.build(dict(type='ResNetWithStem', **options))
    with_stem.load_state_dict(plain.state_dict(), strict=True)
    with_stem.eval()
    image = torch.randn(1, 3, 64, 64)
    stem, *stages = with_stem(image)
    for found, expected in zip(stages, plain(image), strict=True):
        assert torch.equal(found, expected)
    expected = plain.norm1(plain.conv1(image)).relu()
    assert torch.equal(stem, expected)
