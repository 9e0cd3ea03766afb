import pytest
from mmengine.config import Config

from univip_mm.visualization.inspection import load_dataset, pick_crops


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
    cfg = Config.fromfile(run_files[0])
    cfg.train_dataloader.dataset.pipeline = [dict(type='LoadEncodedImage')]
    with pytest.raises(ValueError, match='without OverlapSceneCrop'):
        load_dataset(cfg)
