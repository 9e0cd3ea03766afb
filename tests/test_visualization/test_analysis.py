import numpy as np
import pytest
import torch

from univip_mm.visualization.analysis import (
    cosine_map,
    cut_scene,
    embed,
    nearest,
    similarity_maps,
    transport_of,
    upsample,
)
from univip_mm.visualization.inspection import pick_crops, pick_samples


def test_embed_matches_extract_feat(setup):
    views = [x.view for x in pick_crops(setup, 3)]
    bgr = torch.from_numpy(
        np.stack(views)[..., ::-1].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        inputs = setup.model.data_preprocessor(dict(inputs=bgr))['inputs']
        pooled = setup.model.extract_feat(inputs.cpu())[-1].mean((2, 3))
    expected = torch.nn.functional.normalize(pooled)
    torch.testing.assert_close(embed(setup.model, views), expected)
    # Without training, the target may differ from the online branch.
    assert not torch.allclose(embed(setup.model, views, 'target'), expected,
                              atol=1e-6) or torch.equal(
        setup.model.backbone.conv1.weight,
        setup.model.target_net.module[0].conv1.weight)


def test_embed_takes_features_without_a_map(setup):
    views = [x.view for x in pick_crops(setup, 3)]
    expected = embed(setup.model, views)
    setup.model.backbone.register_forward_hook(
        lambda _, __, outputs: (outputs[-1].mean((2, 3)), ))
    assert torch.equal(embed(setup.model, views), expected)
    with pytest.raises(ValueError, match=r'\(1, 64\), which is no fea'):
        similarity_maps(setup.model, views[0], views)


def test_nearest_searches_other_groups():
    features = torch.nn.functional.normalize(
        torch.tensor([[1., 0.], [1., 0.1], [1., 1.], [0., 1.], [1., 0.]]))
    found, cosines = nearest(features, ['a', 'b', 'b', 'c', 'a'], 0, 10)
    assert found.tolist() == [1, 2, 3]
    np.testing.assert_allclose(cosines, [1.01**-0.5, 0.5**0.5, 0],
                               rtol=1e-6)
    assert nearest(features, list('abcde'), 3, 1)[0].tolist() == [2]


def test_transport_of_matches_the_loss(setup):
    sample, = pick_samples(setup, 1)
    views = [view[..., ::-1] for view in sample['img']]
    found = transport_of(setup.model, views)
    np.testing.assert_allclose(found.plan.sum(1), found.supply, rtol=1e-4)
    np.testing.assert_allclose(found.plan.sum(), 1, rtol=1e-4)
    # The model's own loss, from the views without augmentation.
    model, losses = setup.model, []
    instance_term = model.instance_term
    model.instance_term = lambda *x: losses.append(
        instance_term(*x)) or losses[-1]
    model.steps_since_update = 0
    model.target_net.move = lambda *_: None
    inputs = [torch.from_numpy(view.transpose(2, 0, 1)[::-1].copy())[None]
              for view in views]
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=inputs))['inputs']
        model.loss(inputs)
    expected = -(found.similarity * found.plan).sum()
    assert losses[0][0].item() == pytest.approx(expected, abs=1e-5)


def test_cosine_map_matches_torch():
    torch.manual_seed(0)
    feature_map = torch.randn(8, 3, 5)
    found = cosine_map(feature_map, feature_map[:, 2, 3][None] * 7)
    assert found.shape == (1, 3, 5)
    assert found[0, 2, 3] == pytest.approx(1)
    assert found.flatten().argmax() == 2 * 5 + 3
    expected = torch.nn.functional.cosine_similarity(
        feature_map, feature_map[:, 2, 3, None, None], dim=0)
    torch.testing.assert_close(found[0], expected)


def test_upsample_keeps_range_and_positions():
    maps = torch.tensor([[[0., 1.], [0., 0.]]])
    large = upsample(maps, (8, 12))
    assert large.shape == (1, 8, 12)
    assert large.min() == 0 and large.max() == 1
    assert large[0, 0, -1] == 1 and large[0, -1].max() == 0


def test_scene_equal_to_instance_has_cosine_one(setup):
    # A view of 32 pixels is one position of the feature map.
    view = pick_crops(setup, 1, 'images')[0].view
    maps = similarity_maps(setup.model, view, [view])
    np.testing.assert_allclose(maps, np.ones((1, 32, 32)), rtol=1e-5)


def test_cut_scene_keeps_ratio_and_boxes(setup):
    sample, = pick_samples(setup, 1)
    x1, y1, x2, y2 = sample['scene_boxes'][0]
    scene, boxes = cut_scene(sample, 50)
    assert max(scene.shape[:2]) == 50
    assert scene.shape[1] / scene.shape[0] == pytest.approx(
        (x2 - x1) / (y2 - y1), rel=0.05)
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= np.array(scene.shape[1::-1]) + 0.5).all()
