import json

import pytest
from mmengine.config import Config

from univip_mm.registry import DATASETS
from univip_mm.visualization.inspection import pick_crops
from univip_mm.visualization.training_views import open_views


def test_pick_crops_selects_large_objects(setup):
    crops = pick_crops(setup, 100)
    assert sorted(x.category for x in crops) == ['cat'] * 8 + ['dog'] * 4
    assert {x.view.shape for x in crops} == {(16, 16, 3)}
    crops = pick_crops(setup, 100, num_classes=1)
    assert {x.category for x in crops} == {'cat'}
    assert len(pick_crops(setup, 5)) == 5


def test_image_category_is_of_largest_object(setup):
    crops = pick_crops(setup, 100, 'images')
    assert [x.category for x in crops] == ['cat'] * 8
    assert {x.view.shape for x in crops} == {(32, 32, 3)}
    assert len({x.img_path for x in crops}) == 8


def test_config_without_crop_is_rejected(run_files):
    cfg = Config.fromfile(run_files[0]).train_dataloader.dataset
    cfg.pipeline = [dict(type='LoadEncodedImage')]
    with pytest.raises(ValueError, match='without OverlapSceneCrop'):
        open_views(DATASETS.build(cfg))


@pytest.mark.parametrize('box', [[900, 0, 99, 99], [0, -200, 99, 99]])
def test_pick_crops_names_a_box_outside(run_files, setup, box):
    path = run_files[0].parent / 'train.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['bbox'] = box
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='outside of the image.*another size'):
        pick_crops(setup, 100)


def test_pick_crops_needs_no_categories(run_files, setup):
    path = run_files[0].parent / 'train.json'
    content = json.loads(path.read_text())
    del content['categories']
    path.write_text(json.dumps(content))
    assert len(pick_crops(setup, 100)) == 12
