import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn

from univip_mm.downstream.stage_heads import POOLS, StageHeads
from univip_mm.registry import METRICS, MODELS

CHANNELS = (4, 4, 8, 8, 8)
# Of a 224-pixel image: the stem and the four stages.
SIDES = (112, 56, 28, 14, 7)


def maps(batch=2):
    generator = torch.manual_seed(0)
    return [torch.randn(batch, c, side, side, generator=generator)
            for c, side in zip(CHANNELS, SIDES)]


def samples(labels):
    return [BaseDataElement(gt_label=torch.tensor([x])) for x in labels]


def test_the_stem_comes_before_the_stages(univip_scope):
    options = dict(depth=18, base_channels=4, stem_channels=4)
    plain = MODELS.build(dict(type='ResNet', out_indices=(0, 1, 2, 3),
                              **options))
    plain.eval()  # the host's returns nothing
    with_stem = MODELS.build(dict(type='ResNetWithStem', **options))
    with_stem.load_state_dict(plain.state_dict(), strict=True)
    with_stem.eval()
    image = torch.randn(1, 3, 64, 64)
    stem, *stages = with_stem(image)
    for found, expected in zip(stages, plain(image), strict=True):
        assert torch.equal(found, expected)
    expected = plain.norm1(plain.conv1(image)).relu()
    assert torch.equal(stem, expected)


def test_each_stage_is_pooled_to_about_9000_values_for_a_resnet50():
    heads = StageHeads(2)
    sizes = [x.in_features for x in heads.classifiers]
    # OpenSelfSup's POOL_DIMS.
    assert sizes == [9216, 9216, 8192, 9216, 8192]
    for (options, side), size in zip(POOLS, SIDES):
        pooled = nn.functional.avg_pool2d(torch.ones(1, 1, size, size),
                                          **options)
        assert pooled.shape[2:] == (side, side)


def test_a_stage_alone_computes_what_it_does_among_all():
    heads = StageHeads(3, CHANNELS)
    alone = StageHeads(3, CHANNELS, stages=(4, ))
    alone.classifiers[0].load_state_dict(heads.classifiers[4].state_dict())
    found, = alone(maps())
    torch.testing.assert_close(found, heads(maps())[4])


def test_no_stage_gets_a_gradient_of_another():
    heads = StageHeads(3, CHANNELS)
    losses = heads.loss(maps(), samples([0, 2]))
    assert list(losses) == [f'stage{i}_loss' for i in range(5)]
    losses['stage1_loss'].backward()
    assert [x.weight.grad is not None for x in heads.classifiers] == [
        False, True, False, False, False]


def test_normalisation_learns_nothing():
    heads = StageHeads(3, CHANNELS, norm_cfg=dict(type='SyncBN'))
    assert all(isinstance(x, nn.SyncBatchNorm) and not list(x.parameters())
               for x in heads.norms)
    with pytest.raises(ValueError, match='must be BN or SyncBN'):
        StageHeads(3, CHANNELS, norm_cfg=dict(type='GN'))


def test_another_image_size_is_told():
    feature_maps = maps()
    feature_maps[2] = feature_maps[2][..., :20, :20]
    with pytest.raises(ValueError, match='stage 2 is of 20x20: crop to 224'):
        StageHeads(3, CHANNELS)(feature_maps)


def test_the_hosts_metric_reads_the_scores():
    heads = StageHeads(2, CHANNELS, stages=(3, 4)).eval()
    with torch.no_grad():
        for classifier, bias in zip(heads.classifiers, ([9., 0.], [0., 9.])):
            classifier.weight.zero_()
            classifier.bias.copy_(torch.tensor(bias))
        found = heads.predict(maps(), samples([0, 1]))
    with DefaultScope.overwrite_default_scope('univip_mm'):
        metric = METRICS.build(dict(
            type='MultiTasksMetric', task_metrics={
                name: [dict(type='Accuracy')] for name in ('stage3',
                                                           'stage4')}))
    # Always the first class, and always the second.
    metric.process(None, [x.to_dict() for x in found])
    assert metric.evaluate(2) == {'stage3_accuracy/top1': 50.0,
                                  'stage4_accuracy/top1': 50.0}
    assert found[0].stage3['pred_score'].argmax() == 0
    assert found[0].stage4['pred_score'].argmax() == 1
