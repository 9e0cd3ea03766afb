"""The tools of tools/visualization/ on a tiny network that was not trained,
and the functions that they draw from."""
import json

import matplotlib.image
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny import error_of, run_tool, write_config

from univip_mm.registry import MODELS
from univip_mm.visualization.features import (
    Neighbours,
    Pairing,
    draw_neighbours,
    draw_points,
    draw_similarity,
    draw_transport,
    line_widths,
)
from univip_mm.visualization.inspection import (
    Setup,
    cosine_map,
    cut_scene,
    embed,
    load_dataset,
    load_model,
    nearest,
    pick_crops,
    pick_samples,
    similarity_maps,
    transport_of,
    upsample,
)

TOOLS = ('tsne', 'neighbours', 'transport_plan', 'similarity_map')


def annotate(folder):
    """Two objects in each image: a cat above 64 pixels, and a small dog."""
    path = folder / 'train.json'
    content = json.loads(path.read_text())
    content['categories'] = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    content['annotations'] = [
        dict(id=10 * i + category, image_id=image['id'], category_id=category,
             bbox=[8 * i, 5, side, side], area=side**2, iscrowd=0)
        for i, image in enumerate(content['images'])
        for category, side in ((1, 90), (2, 20 if i % 2 else 70))
    ]
    path.write_text(json.dumps(content))


@pytest.fixture
def files(coco_folder, univip_scope):
    """A config and a checkpoint, with annotations."""
    annotate(coco_folder)
    config = write_config(coco_folder)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    path = coco_folder / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return config, path


@pytest.fixture
def setup(files):
    config, path = files
    cfg = Config.fromfile(config)
    model = load_model(cfg, torch.load(path), path)
    np.random.seed(0)
    return Setup(cfg, model, *load_dataset(cfg))


def drawn(files, name, *options):
    out = files[0].parent / 'pictures' / f'{name}.png'
    run_tool(f'visualization/{name}', *files, '--out', out, *options)
    return matplotlib.image.imread(out)


# The tools.

@pytest.mark.parametrize('name, options, size, said', [
    ('tsne', ['--number', '10'], (1000, 1400),
     '10 objects, perplexity 3'),
    ('tsne', ['--what', 'images', '--branch', 'target'], (1000, 1400),
     '8 images'),
    ('neighbours', ['--queries', '3', '--top-k', '4'], (96 + 3 * 172 + 8,
                                                        760),
     '3 queries among 12 objects'),
    ('neighbours', ['--what', 'images', '--queries', '2'],
     (96 + 2 * 172 + 8, 18 + 134 + 26 + 7 * 134 + 18), '2 queries among 8'),
    ('transport_plan', ['--number', '2'], (76 + 2 * 496, None),
     '2 images with 8 instances'),
    ('similarity_map', ['--number', '2', '--scene-size', '64'], (None, None),
     '2 scenes of 64 pixels'),
])
def test_a_picture_of_its_size_is_written(files, capsys, name, options, size,
                                          said):
    picture = drawn(files, name, *options)
    for found, expected in zip(picture.shape, size):
        assert expected in (None, found)
    assert picture[..., :3].std() > 0.05
    assert said in capsys.readouterr().out


@pytest.mark.parametrize('name', TOOLS)
def test_the_same_seed_gives_the_same_picture(files, name):
    options = ['--number', '9'] if name in TOOLS[:2] else ['--number', '1']
    first, again = (drawn(files, name, *options) for _ in range(2))
    assert np.array_equal(first, again)


# What a user gets wrong, and a word of the answer.

@pytest.mark.parametrize('name', TOOLS)
def test_what_is_missing_or_wrong_is_told_in_one_line(files, name):
    config, checkpoint = files
    tool = f'visualization/{name}'
    out = ('--out', config.parent / 'x.png')
    assert "no config 'no.py'" in error_of(tool, 'no.py', checkpoint, *out)
    assert "no checkpoint 'no.pth'" in error_of(tool, config, 'no.pth', *out)
    assert 'must end in .png' in error_of(
        tool, config, checkpoint, '--out', 'x.jpg')
    assert '--number is 0' in error_of(
        tool, config, checkpoint, *out, '--number', 0)
    assert 'weights do not fit, the first backbone.bn1.bias' in error_of(
        tool, config, checkpoint, *out, '--cfg-options',
        'model.backbone.stem_channels=16')


def test_a_json_without_annotations_is_told(files):
    config, checkpoint = files
    path = config.parent / 'train.json'
    images = json.loads(path.read_text())['images']
    path.write_text(json.dumps(dict(images=images)))
    for name in ('tsne', 'neighbours'):
        message = error_of(f'visualization/{name}', config, checkpoint,
                           '--out', config.parent / 'x.png')
        assert 'no annotated object' in message
        assert 'give --what images' in message
        picture = drawn(files, name, '--what', 'images')
        assert picture[..., :3].std() > 0.05


@pytest.mark.parametrize('name, options, message', [
    ('tsne', ['--number', '4'], 'there are 4 objects'),
    ('tsne', ['--perplexity', '0'], '--perplexity is 0'),
    ('neighbours', ['--top-k', '0'], '--top-k is 0'),
    ('neighbours', ['--number', '1'], 'are of one image'),
    ('similarity_map', ['--scene-size', '8'], '--scene-size is 8'),
])
def test_an_option_out_of_its_range_is_told(files, name, options, message):
    assert message in error_of(f'visualization/{name}', *files, '--out',
                               files[0].parent / 'x.png', *options)


def test_an_image_that_cannot_be_read_is_named(files):
    (files[0].parent / 'images' / '3.jpg').write_bytes(b'no image')
    message = error_of('visualization/tsne', *files, '--out',
                       files[0].parent / 'x.png')
    assert str(files[0].parent / 'images' / '3.jpg') in message


# What is computed.

def test_objects_are_those_large_enough_with_their_category(setup):
    crops = pick_crops(setup, 100)
    assert sorted(x.category for x in crops) == ['cat'] * 8 + ['dog'] * 4
    assert {x.picture.shape for x in crops} == {(16, 16, 3)}
    crops = pick_crops(setup, 100, num_classes=1)
    assert {x.category for x in crops} == {'cat'}
    assert len(pick_crops(setup, 5)) == 5


def test_an_image_is_named_after_its_largest_object(setup):
    crops = pick_crops(setup, 100, 'images')
    assert [x.category for x in crops] == ['cat'] * 8
    assert {x.picture.shape for x in crops} == {(32, 32, 3)}
    assert len({x.img_path for x in crops}) == 8


def test_features_are_those_that_predict_writes(setup):
    views = [x.picture for x in pick_crops(setup, 3)]
    bgr = torch.from_numpy(
        np.stack(views)[..., ::-1].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        inputs = setup.model.data_preprocessor(dict(inputs=bgr))['inputs']
        pooled = setup.model.extract_feat(inputs.cpu())[-1].mean((2, 3))
    expected = torch.nn.functional.normalize(pooled)
    torch.testing.assert_close(embed(setup.model, views), expected)
    # An untrained target is another network than an untrained online one.
    assert not torch.allclose(embed(setup.model, views, 'target'), expected,
                              atol=1e-6) or torch.equal(
        setup.model.backbone.conv1.weight,
        setup.model.target_net.module[0].conv1.weight)


def test_neighbours_are_of_other_groups_the_most_similar_first():
    features = torch.nn.functional.normalize(
        torch.tensor([[1., 0.], [1., 0.1], [1., 1.], [0., 1.], [1., 0.]]))
    found, cosines = nearest(features, ['a', 'b', 'b', 'c', 'a'], 0, 10)
    assert found.tolist() == [1, 2, 3]
    np.testing.assert_allclose(cosines, [1.01**-0.5, 0.5**0.5, 0],
                               rtol=1e-6)
    assert nearest(features, list('abcde'), 3, 1)[0].tolist() == [2]


def test_the_plan_is_that_of_the_loss(setup):
    sample, = pick_samples(setup, 1)
    views = [view[..., ::-1] for view in sample['img']]
    found = transport_of(setup.model, views)
    np.testing.assert_allclose(found.plan.sum(1), found.supply, rtol=1e-4)
    np.testing.assert_allclose(found.plan.sum(), 1, rtol=1e-4)
    # As the loss computes it, from the views as they are.
    model, losses = setup.model, []
    instance_term = model.instance_term
    model.instance_term = lambda *x: losses.append(
        instance_term(*x)) or losses[-1]
    model.target_net.update_parameters = lambda *_: None
    inputs = [torch.from_numpy(view.transpose(2, 0, 1)[::-1].copy())[None]
              for view in views]
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=inputs))['inputs']
        model.loss(inputs)
    expected = -(found.similarity * found.plan).sum()
    assert losses[0][0].item() == pytest.approx(expected, abs=1e-5)


def test_the_lines_of_a_plan_are_as_wide_as_its_masses():
    plan = np.array([[.3, .1], [0, .6]])
    widths = line_widths(plan, 10)
    np.testing.assert_allclose(widths / widths.sum(), plan)
    # All that one of K instances can have, where each has the same.
    assert line_widths(np.eye(4) / 4, 10).max() == 10


def test_a_place_with_the_instance_s_feature_has_cosine_one():
    torch.manual_seed(0)
    feature_map = torch.randn(8, 3, 5)
    found = cosine_map(feature_map, feature_map[:, 2, 3][None] * 7)
    assert found.shape == (1, 3, 5)
    assert found[0, 2, 3] == pytest.approx(1)
    assert found.flatten().argmax() == 2 * 5 + 3
    expected = torch.nn.functional.cosine_similarity(
        feature_map, feature_map[:, 2, 3, None, None], dim=0)
    torch.testing.assert_close(found[0], expected)


def test_a_map_keeps_its_range_and_its_places_at_another_size():
    maps = torch.tensor([[[0., 1.], [0., 0.]]])
    large = upsample(maps, (8, 12))
    assert large.shape == (1, 8, 12)
    assert large.min() == 0 and large.max() == 1
    assert large[0, 0, -1] == 1 and large[0, -1].max() == 0


def test_a_scene_that_is_the_instance_is_similar_to_it(setup):
    # A view of 32 pixels is one place of the feature map.
    view = pick_crops(setup, 1, 'images')[0].picture
    maps = similarity_maps(setup.model, view, [view])
    np.testing.assert_allclose(maps, np.ones((1, 32, 32)), rtol=1e-5)


def test_the_scene_is_cut_as_the_crop_was_with_its_boxes(setup):
    sample, = pick_samples(setup, 1)
    x1, y1, x2, y2 = sample['scene_boxes'][0]
    scene, boxes = cut_scene(sample, 50)
    assert max(scene.shape[:2]) == 50
    assert scene.shape[1] / scene.shape[0] == pytest.approx(
        (x2 - x1) / (y2 - y1), rel=0.05)
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= np.array(scene.shape[1::-1]) + 0.5).all()


def test_a_config_of_another_data_set_is_told(files):
    cfg = Config.fromfile(files[0])
    cfg.train_dataloader.dataset.pipeline = [dict(type='LoadEncodedImage')]
    with pytest.raises(ValueError, match='without OverlapSceneCrop'):
        load_dataset(cfg)


# What is drawn.

@pytest.mark.parametrize('draw', [draw_neighbours, draw_transport,
                                  draw_similarity])
def test_nothing_to_draw_is_told(draw, tmp_path):
    with pytest.raises(ValueError, match='give at least one'):
        draw([], tmp_path / 'x.png')


def test_points_without_a_name_are_drawn_too(tmp_path):
    draw_points(np.random.default_rng(0).normal(size=(30, 2)),
                ['cat'] * 10 + ['a' * 50] * 10 + [None] * 10,
                tmp_path / 'x.png')
    picture = matplotlib.image.imread(tmp_path / 'x.png')
    assert picture.shape[:2] == (1000, 1400)


def test_a_neighbour_of_the_same_category_has_the_green_frame(tmp_path):
    picture = np.full((9, 9, 3), 128, np.uint8)
    green, orange = (0, 158, 115), (213, 94, 0)
    counts = {}
    for name in ('cat', 'dog'):
        draw_neighbours(
            [Neighbours(picture, 'cat', [picture] * 5, [name] * 5, [1] * 5)],
            tmp_path / 'x.png')
        drawn = matplotlib.image.imread(tmp_path / 'x.png')[..., :3]
        drawn = (255 * drawn).round().astype(int)
        counts[name] = [(drawn == x).all(axis=2).sum()
                        for x in (green, orange)]
    assert counts['cat'][0] > 5 * counts['dog'][0]
    assert counts['dog'][1] > 5 * counts['cat'][1]


def test_many_instances_have_room(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[k, k, 20 + k, 20 + k] for k in range(6)])
    plan = np.full((6, 6), 1 / 36)
    draw_transport(
        [Pairing('a', picture, boxes, [picture[:, :40]] * 6, plan, plan,
                 plan.sum(1), plan.sum(0))], tmp_path / 'x.png')
    drawn = matplotlib.image.imread(tmp_path / 'x.png')
    assert drawn.shape[0] == 76 + 6 * 100 - 16 + 112
